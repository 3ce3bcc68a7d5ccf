"""Speaks a text into speech.wav: python examples/speak_a_text.py ["Turn on the kitchen light."]"""

import sys

import omni_rt

text = sys.argv[1] if len(sys.argv) > 1 else "Hello. How can I help you?"
with omni_rt.load("tiny") as omni:
    speech = omni.text_to_speech(text)
    speech.save("speech.wav")
    print(f"{len(speech.waveform) / speech.sample_rate:.1f} s of speech in speech.wav")
