"""Hears and sees on the CPU, thinks and speaks on a GPU: python examples/two_devices.py"""

from pathlib import Path

import omni_rt

placement = omni_rt.OmniConfig(audio_encoder="cpu", vision_encoder="cpu", code2wav="cpu")
with omni_rt.load("tiny", device="wgpu", placement=placement) as omni:
    question = {"type": "audio", "audio": str(Path(__file__).with_name("how-many-legs-has-a-spider.wav"))}
    print(omni.chat([{"role": "user", "content": [question]}]).text)
    print(", ".join(f"{name}: {device.name}" for name, device in omni.devices.items()))
