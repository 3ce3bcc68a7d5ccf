"""Trains the tiny Qwen3-Omni that ships in the package. README.md beside this file has the order of the stages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the generator of checkpoints lies one directory up
