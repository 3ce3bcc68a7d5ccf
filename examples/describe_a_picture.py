"""Says what is in a picture: python examples/describe_a_picture.py [picture.png]"""

import sys
from pathlib import Path

import omni_rt

picture = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("red-circle.png")
with omni_rt.load("tiny") as omni:
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": "What do you see?"}]
    print(omni.chat([{"role": "user", "content": content}]).text)
