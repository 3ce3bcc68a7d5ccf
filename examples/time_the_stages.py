"""Times each stage of a spoken answer: python examples/time_the_stages.py"""

from pathlib import Path

import omni_rt

with omni_rt.load("tiny", device="cpu") as omni:
    question = {"type": "audio", "audio": str(Path(__file__).with_name("what-is-three-plus-four.wav"))}
    omni.chat([{"role": "user", "content": [question]}], speech=True)  # warm
    timings = omni.chat([{"role": "user", "content": [question]}], speech=True).timings
    print(f"first token {timings.first_token_ms:.0f} ms, first sound {timings.first_audio_ms:.0f} ms")
    print(f"{timings.tokens_per_s:.0f} tokens/s, {timings.rtf:.2f} s of work per second of speech")
