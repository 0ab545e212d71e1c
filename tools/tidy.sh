#!/usr/bin/env bash
# clang-tidy (.clang-tidy) over the C sources of the modules, a process for each core; fails on any
# finding. make tidy calls it with the compiler's flags; the instruction sets follow from file names.
#   tools/tidy.sh FILE... -- FLAG...
set -eu
cd "$(dirname "$0")/.."
files=()
while [ "$1" != -- ]; do files+=("$1"); shift; done
shift
tidy() {
  local isa=() file=$1; shift
  case $file in
    *_avx2.c) isa=(-mavx2 -mfma -mf16c) ;;
    *_avxvnni.c) isa=(-mavx2 -mfma -mf16c -mavxvnni) ;;
    *_avx512.c) isa=(-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni) ;;
    *_amx.c) isa=(-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16 -mamx-tile -mamx-bf16) ;;
  esac
  clang-tidy --quiet "$file" -- "$@" "${isa[@]}" 2> /dev/null
}
export -f tidy
printf '%s\0' "${files[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'tidy "$@"' _ {} "$@"
