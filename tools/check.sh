#!/bin/sh
# Runs the tests on a machine that has only Python and a Vulkan driver: makes a virtual environment, installs the package
# with the extra `test`, and runs pytest. Arguments go to pytest. Without a Vulkan adapter it fails and says so.
set -eu
cd "$(dirname "$0")/.."
. tools/environment.sh

environment=.venv-check
make_environment "$environment"
install "$environment" -e '.[test]'

if ! "$environment/bin/omni-rt" doctor --device wgpu; then
  fail "the tests need every line above in order, and a Vulkan adapter (software will do). Debian, Ubuntu: apt install mesa-vulkan-drivers. Fedora: dnf install mesa-vulkan-drivers. Arch: pacman -S vulkan-swrast."
fi

workers=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
[ "$workers" -le 4 ] || workers=4
# The software adapter would start a thread per core in every worker.
LP_NUM_THREADS=1 OMP_NUM_THREADS=1 exec "$environment/bin/python" -m pytest -n "$workers" "$@"
