#!/usr/bin/env bash
# Runs the unit tests (Check), the end-to-end tests and those of the page in a browser (pytest); prints one line of counts last.
#   tools/run-tests.sh [--unit] [NAME]     NAME: tests/*/test_NAME.c, or a pytest -k expression
# Environment: BUILD (build), VRAMD_TEST_MODEL (set by tools/get-model.sh otherwise), VRAMD_TEST_GEMMA (set where
# `tools/get-model.sh gemma3` has fetched it before; empty: tests of that model are skipped).
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
unit_only=
[ "${1:-}" = --unit ] && { unit_only=1; shift; }
name=${1:-}
pass=0 fail=0 skip=0
count() { # log, exit status; reads a Check summary: "97%: Checks: 40, Failures: 1, Errors: 0"
  local c f e
  read -r c f e < <(sed -nE 's/^[0-9]+%: Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+).*/\1 \2 \3/p' "$1" | tail -n 1) || true
  [ -n "${c:-}" ] || return 1
  pass=$((pass + c - f - e)); fail=$((fail + f + e))
  [ "$2" -eq 0 ] || [ $((f + e)) -gt 0 ] || fail=$((fail + 1)) # a sanitizer, after all checks passed
}
log_of() { local t=${1#"$BUILD/tests/"}; echo "$BUILD/log/${t//\//-}.log"; }
run_unit() { # one program, beside others; its log and exit status stay in $BUILD/log
  local log rc start=$SECONDS
  log=$(log_of "$1")
  "$1" > "$log" 2>&1; rc=$?
  echo $rc > "$log.rc"
  if [ $rc -ne 0 ] || ! grep -qE '^[0-9]+%' "$log"; then echo "FAILED $1 (rc $rc)"; tail -n 40 "$log"
  else echo "ok $1: $(grep -E '^[0-9]+%' "$log" | tail -n 1) ($((SECONDS - start)) s)"; fi
}
export -f log_of run_unit
export BUILD
mkdir -p "$BUILD/log"
if [ -z "${VRAMD_TEST_MODEL:-}" ]; then
  VRAMD_TEST_MODEL=$(tools/get-model.sh) || { echo "tests: no model"; exit 1; }
fi
VRAMD_TEST_GEMMA=${VRAMD_TEST_GEMMA-$(tools/get-model.sh --cached gemma3)}
export VRAMD_TEST_MODEL VRAMD_TEST_GEMMA
wanted=()
for f in tests/*/test_*.c; do
  case $f in tests/cuda/*|tests/cushim/*) continue ;; esac # tools/run-cuda-tests.sh
  b=$(basename "$f" .c)
  if [ -z "$name" ] || [ "test_$name" = "$b" ]; then wanted+=("$BUILD/${f%.c}"); fi
done
if [ ${#wanted[@]} -gt 0 ]; then
  make -s -j"$(nproc)" BUILD="$BUILD" "${wanted[@]}" || { echo "tests: the build failed"; exit 1; }
  printf '%s\n' "${wanted[@]}" | xargs -P "$(nproc)" -I{} bash -c 'run_unit "$1"' _ {}
  for t in "${wanted[@]}"; do
    log=$(log_of "$t")
    count "$log" "$(cat "$log.rc")" || fail=$((fail + 1))
  done
fi
if [ -z "$unit_only" ] && { [ -z "$name" ] || [ ${#wanted[@]} -eq 0 ]; }; then
  make -s -j"$(nproc)" BUILD="$BUILD" all mpi "$BUILD/oom.so" || { echo "tests: the build failed"; exit 1; }
  py=$(tools/venv.sh) || { echo "tests: no Python environment"; exit 1; }
  log=$BUILD/log/pytest.log
  BUILD="$BUILD" "$py" -m pytest -q -rs --durations=20 -p no:cacheprovider ${name:+-k "$name"} tests/e2e tests/web 2>&1 | tee "$log"
  rc=${PIPESTATUS[0]}
  p=$(sed -nE 's/(^|.* )([0-9]+) passed.*/\2/p' "$log" | tail -n 1); q=$(sed -nE 's/(^|.* )([0-9]+) failed.*/\2/p' "$log" | tail -n 1)
  e=$(sed -nE 's/(^|.* )([0-9]+) errors?.*/\2/p' "$log" | tail -n 1)
  k=$(sed -nE 's/(^|.* )([0-9]+) skipped.*/\2/p' "$log" | tail -n 1)
  pass=$((pass + ${p:-0})); fail=$((fail + ${q:-0} + ${e:-0})); skip=$((skip + ${k:-0}))
  [ "$rc" -eq 0 ] || [ $((${q:-0} + ${e:-0})) -gt 0 ] || fail=$((fail + 1))
fi
[ $((pass + fail)) -gt 0 ] || { echo "tests: nothing is named '$name'"; exit 1; }
if [ $skip -gt 0 ]; then echo "$pass passed, $fail failed, $skip skipped"; else echo "$pass passed, $fail failed"; fi
[ "$fail" -eq 0 ]
