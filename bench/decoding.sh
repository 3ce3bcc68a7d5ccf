#!/bin/bash
# Everything about decoding on a GPU in one run of about 100 s: steps and frames at full size on random weights, then the
# variants of the kernels that they are made of. From a checkout: bench/decoding.sh [DEVICE] > results.txt
set -u
device=${1:-wgpu}
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

measure() {
  echo "== $*"
  timeout 40 python3 -m omni_rt bench "$@" --device "$device" || echo "failed: $*"
}

git log -1 --format='commit %h' 2>/dev/null
for context in 128 1024 4096; do
  measure model --shape thinker --context "$context" --seconds 0.6
done
for shape in tts-0.6b tts-1.7b talker code2wav; do
  measure model --shape "$shape" --context 128 --seconds 0.4
done
measure tune append_attend append_attend_parts route_gate_up expert_down norm_matmul norm_gate_up matmul_add \
  --dtype q8_0 --dtype f16 --seconds 0.05 --output /tmp/tuned.json 2>&1 # what it finds is told as it is found
measure ops attention_merge argmax_parts argmax_merge sample sample_embed penalise norm_matmul matmul --dtype q8_0 --dtype f32 --seconds 0.1
