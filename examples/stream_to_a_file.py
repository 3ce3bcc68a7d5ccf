"""Writes speech to a file while it is made: python examples/stream_to_a_file.py"""

import soundfile

import omni_rt

with omni_rt.load("tiny") as omni, soundfile.SoundFile("stream.wav", "w", 24000, 1) as file:
    for event in omni.stream([{"role": "user", "content": "What is two plus five?"}], speech=True, seed=0):
        if isinstance(event, omni_rt.TextDelta):
            print(event.text, end="", flush=True)
        elif isinstance(event, omni_rt.AudioChunk):
            file.write(event.samples)
print()
