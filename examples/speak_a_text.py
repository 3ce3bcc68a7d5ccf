"""Speak a text into speech.wav: python examples/speak_a_text.py "Hello. How can I help you?" """

import sys

import omni_rt

with omni_rt.load("tiny") as omni:
    speech = omni.text_to_speech(sys.argv[1])
    speech.save("speech.wav")
    print(f"{len(speech.waveform) / speech.sample_rate:.1f} s of speech in speech.wav")
