# Shared by quickstart.sh and check.sh: finds a Python and makes a virtual environment. Sourced, not run.

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Sets $python to a Python 3.11 or newer.
find_python() {
  for python in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if command -v "$python" >/dev/null 2>&1 &&
      "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      return 0
    fi
  done
  fail "Python 3.11 or newer was not found. Debian 12, Ubuntu 24.04: apt install python3 python3-venv. Fedora: dnf install python3. Arch: pacman -S python."
}

# make_environment DIRECTORY: a virtual environment there, kept when it works already.
make_environment() {
  if [ -x "$1/bin/python" ] && "$1/bin/python" -m pip --version >/dev/null 2>&1; then
    return 0
  fi
  find_python
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "this Python cannot make virtual environments. Debian, Ubuntu: apt install python3-venv. Then run this again."
  say "Making a virtual environment in $1"
  "$python" -m venv --clear "$1" || fail "the virtual environment in $1 could not be made; see the lines above."
}

# install DIRECTORY WHAT...: pip install in that environment.
install() {
  target=$1
  shift
  say "Installing (this downloads about 60 MB the first time)"
  "$target/bin/python" -m pip install --quiet --quiet --disable-pip-version-check "$@" ||
    fail "pip could not install the package; see the lines above. It needs the network once."
}

# Stops wgpu-native from complaining that this is unset; nothing is put there.
XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}
export XDG_RUNTIME_DIR
