"""Asks by voice and answers by voice: python examples/chat_by_voice.py [question.wav]"""

import sys
from pathlib import Path

import omni_rt

question = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("what-is-three-plus-four.wav")
with omni_rt.load("tiny") as omni:
    message = {"role": "user", "content": [{"type": "audio", "audio": str(question)}]}
    reply = omni.chat([message], speech=True, seed=0)
    print(reply.text)
    reply.save("answer.wav")
