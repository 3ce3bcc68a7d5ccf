#!/bin/sh
# Answers the shipped spoken question by voice, on a machine that has only Python: makes a virtual environment, installs
# the package, says what this machine lacks, and writes answer.wav. Run it again at any time.
set -eu
cd "$(dirname "$0")/.."
. tools/environment.sh

environment=.venv
make_environment "$environment"
install "$environment" .

# Run from elsewhere than the checkout, so that the installed package is what answers.
root=$(pwd)
omni_rt=$root/$environment/bin/omni-rt
cd "$root/examples"
"$omni_rt" doctor || say "(see above what is missing)"

device=auto
if ! "$omni_rt" devices --json |
  "$root/$environment/bin/python" -c '
import json, sys
found = json.load(sys.stdin)["devices"]
sys.exit(not any(d["device"] != "cpu" and not d["software"] for d in found))'; then
  device=cpu
  say "No GPU with a Vulkan driver was found (above is how to get one): answering on the CPU."
fi
"$omni_rt" chat what-is-three-plus-four.wav --speech -o "$root/answer.wav" --device "$device" --seed 0
say "The answer is in answer.wav. Ask something else: $environment/bin/omni-rt chat --help"
