#!/usr/bin/env bash
# Writes files as a C source on standard output, each as it is and compressed: tools/embed.sh FILE...
# The same files give the same bytes. Fails where they have more than 60 KB together, compressed.
set -euo pipefail
most=$((60 * 1024))
export LC_ALL=C
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

type_of() {
  case $1 in
    *.html) echo 'text/html; charset=utf-8' ;;
    *.js) echo 'text/javascript; charset=utf-8' ;;
    *.css) echo 'text/css; charset=utf-8' ;;
    *.json) echo 'application/json' ;;
    *.svg) echo 'image/svg+xml' ;;
    *.png) echo 'image/png' ;;
    *.txt) echo 'text/plain; charset=utf-8' ;;
    *) echo "embed: $1: an ending without a content type" >&2; exit 1 ;;
  esac
}
array() { # NAME FILE
  echo "static const char $1[] = {"
  od -An -v -td1 -w32 "$2" | sed -E 's/ +/,/g; s/^,//; s/$/,/'
  echo '0};' # an empty file has no elements otherwise
}

echo '/* Made by tools/embed.sh. */'
echo '#include "api/web_files.h"'
total=0 n=0 rows=
for f in "$@"; do
  type=$(type_of "$f")
  gzip -9nc "$f" > "$tmp/gz"
  size=$(stat -c %s "$f") packed=$(stat -c %s "$tmp/gz")
  total=$((total + packed))
  tag=$(sha256sum "$f" | cut -c 1-16)
  array "file_$n" "$f"
  array "packed_$n" "$tmp/gz"
  rows+="    {\"${f##*/}\", \"$type\", \"$tag\", {file_$n, $size}, {packed_$n, $packed}},"$'\n'
  n=$((n + 1))
done
if [ "$total" -gt $most ]; then
  echo "embed: $n files of the page have $total bytes compressed, more than $most" >&2
  exit 1
fi
printf 'const web_file web_files[] = {\n%s    {0}};\nconst size_t n_web_files = %d;\n' "$rows" "$n"
