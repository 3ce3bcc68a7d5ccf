#!/bin/bash
# Everything about the kernels on a GPU: that they are right, each time, which variants are fastest, and what each op takes.
# About six minutes. From a checkout: bench/kernels.sh [DEVICE] [DIRECTORY for the results]
set -u
device=${1:-wgpu}
mkdir -p "${2:-kernels}"
results=$(cd "${2:-kernels}" && pwd)
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

python3 -m pytest -n 4 tests/test_repeats.py tests/test_ops.py tests/test_sampling.py tests/test_rounding.py >"$results/tests.txt" 2>&1
tail -3 "$results/tests.txt"
python3 -m omni_rt bench tune --device "$device" --dtype q8_0 --dtype f16 --json --output "$results/table.json" \
  >"$results/tune.jsonl" 2>"$results/tune.txt"
tail -1 "$results/tune.txt"
python3 -m omni_rt bench ops --device "$device" --dtype q8_0 --dtype f16 --seconds 0.5 >"$results/ops.txt"
cat "$results/ops.txt"
