#!/usr/bin/env bash
# Sets up (Debian packages, the real model, a Python environment) and passes all tests: builds with
# gcc and clang; layers, purity, names in comments, versions, formatting, clang-tidy; unit and
# end-to-end tests, the CUDA kernels (by nvcc, and on the CPU; skipped without the toolkit), and
# (with --sanitizers) the unit tests again under ASan, UBSan and TSan, and the fuzzers briefly.
# Prints one line of counts last.
#   tools/test.sh [--sanitizers]
set -eu
cd "$(dirname "$0")/.."
tools/setup.sh --tests
VRAMD_TEST_MODEL=$(tools/get-model.sh)
VRAMD_TEST_GEMMA=$(tools/get-model.sh gemma3)
export VRAMD_TEST_MODEL VRAMD_TEST_GEMMA
jobs=$(nproc)
say() { printf '== %s (%ds)\n' "$1" $SECONDS; }
pass=0 fail=0 skip=0 skipped=()
run() { # name, make arguments: runs a suite and adds its last line's counts
  local name=$1 log p f s line
  say "$name"; shift
  log=$(mktemp)
  make -s "$@" 2>&1 | tee "$log" || true # its counts say
  read -r p f s < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 \4/p' "$log" | tail -n 1) || true
  pass=$((pass + ${p:-0})); fail=$((fail + ${f:-1})); skip=$((skip + ${s:-0}))
  while read -r line; do skipped+=("$name: $line"); done < <(sed -nE 's/^SKIPPED //p; s/^(CUDA toolkit not found.*): skipped$/all: \1/p' "$log")
  rm -f "$log"
}
say "build, gcc"
make -s -j"$jobs" all
say "layers, purity, names, versions, format"
make -s layers pure names versions format-check
say "clang-tidy"
make -s tidy
say "build, clang"
make -s -j"$jobs" CC=clang BUILD=build/clang all
run "tests" test
say "CUDA engine, nvcc"
make -s -j"$jobs" cuda
say "CUDA kernels: what spills, what grew"
make -s cuda-model-check
run "CUDA tests on the CPU" test-cuda
if [ "${1:-}" = --sanitizers ]; then
  export VRAMD_TEST_GEMMA= # too large for sanitizers; tiny ones of its family stay
  for san in asan ubsan tsan; do run "unit tests under $san" "$san-unit"; done
  say "fuzzers, briefly"
  for f in tests/fuzz/fuzz_*.c; do
    name=$(basename "$f" .c); name=${name#fuzz_}
    if make -s fuzz F="$name" SECONDS=5 > "build/fuzz-$name.log" 2>&1; then pass=$((pass + 1)); else
      fail=$((fail + 1)); tail -n 30 "build/fuzz-$name.log"; fi
  done
fi
say "done"
[ ${#skipped[@]} -eq 0 ] || { echo "skipped:"; printf '  %s\n' "${skipped[@]}"; }
# The suites above printed their own counts: this line is the sum.
echo "$pass passed, $fail failed, $skip skipped"
[ $fail -eq 0 ]
