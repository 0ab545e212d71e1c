#!/usr/bin/env bash
# Prints the Python of the project's virtual environment (in the cache), made if it is not there.
#   --bare: pip alone; otherwise with what the tests in Python need (tests/e2e/requirements.txt)
set -eu
cd "$(dirname "$0")/.."
dir=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}/venv
[ -x "$dir/bin/pip" ] || { mkdir -p "$(dirname "$dir")"; python3 -m venv "$dir" >&2; }
if [ "${1:-}" != --bare ]; then
  stamp=$dir/requirements.$(sha256sum < tests/e2e/requirements.txt | cut -c1-16)
  [ -f "$stamp" ] || { "$dir/bin/pip" install -q --disable-pip-version-check -r tests/e2e/requirements.txt >&2; touch "$stamp"; }
fi
echo "$dir/bin/python"
