#!/bin/sh
# Makes an environment for the reference of Qwen3-TTS: qwen-tts on the transformers that it pins, and what it really
# imports, nothing more. torch and the rest come from the environment of $PYTHON, which holds the extra `oracle`.
#
#     PYTHON=.venv/bin/python sh tools/tts_reference.sh .venv-tts
#     .venv-tts/bin/python tools/golden_tts.py make --seed 1 --out tests/goldens/tts-seed1
set -eu
python=${PYTHON:-python3}
directory=$1
"$python" -m venv --without-pip "$directory"
site=$("$directory/bin/python" -c 'import site; print(site.getsitepackages()[0])')
"$python" -m pip install -q --no-deps --target "$site" -r "$(dirname "$0")/tts_reference.txt"
"$python" -c 'import site; print(site.getsitepackages()[0])' >"$site/shared.pth"
