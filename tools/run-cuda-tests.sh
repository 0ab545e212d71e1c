#!/usr/bin/env bash
# Runs the CUDA tests on the CPU (tests/cushim): every test in the orders 0..3, then with
# AddressSanitizer and UBSan in one, then the daemon with the CUDA engine; prints one line of counts last.
#   tools/run-cuda-tests.sh [NAME]     NAME: tests/{cuda,cushim}/test_NAME.*, or daemon for the last part
# Environment: BUILD (build), ORDERS ("0 1 2 3"), ASAN_ORDERS ("4"; empty: not with the sanitizers).
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
name=${1:-}
log=$BUILD/log/cuda
mkdir -p "$log"
rm -f "$log"/*.log "$log"/*.rc
tests=()
for f in tests/cushim/test_*.c* tests/cuda/test_*.c*; do
  [ -e "$f" ] || continue
  b=$(basename "${f%.*}")
  if [ -z "$name" ] || [ "test_$name" = "$b" ]; then tests+=("${f%.*}"); fi
done
[ ${#tests[@]} -gt 0 ] || [ "$name" = daemon ] || { echo "tests: nothing is named '$name'"; exit 1; }

one() { # binary, order, label: leaves a log and its exit status
  CUSHIM_ORDER=$2 "$1" > "$log/$3.log" 2>&1
  echo $? > "$log/$3.rc"
}
export -f one; export log

pass=0 fail=0
suite() { # build folder, orders, label, make arguments
  local folder=$1 orders=$2 label=$3 bins=() t o; shift 3
  for t in "${tests[@]}"; do bins+=("$folder/shim/$t"); done
  make -s -j"$(nproc)" BUILD="$folder" "$@" "${bins[@]}" || { echo "tests: the build failed"; exit 1; }
  for t in "${tests[@]}"; do
    for o in $orders; do printf '%s\0%s\0%s\0' "$folder/shim/$t" "$o" "${t//\//_}-$label$o"; done
  done | xargs -0 -n 3 -P "$(nproc)" bash -c 'one "$@"' _
  for t in "${tests[@]}"; do
    for o in $orders; do report "$t" "$o" "${t//\//_}-$label$o" "$label"; done
  done
}
report() { # test, order, name of the log, label
  local c f e rc summary
  summary=$(grep -E '^[0-9]+%: Checks:' "$log/$3.log" | tail -n 1)
  read -r c f e < <(sed -nE 's/^[0-9]+%: Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+).*/\1 \2 \3/p' <<< "$summary") || true
  rc=$(cat "$log/$3.rc" 2>/dev/null || echo 1)
  if [ -z "${c:-}" ]; then fail=$((fail + 1)); else pass=$((pass + c - f - e)); fail=$((fail + f + e)); fi
  if [ "$rc" -ne 0 ]; then
    [ -z "${c:-}" ] || [ $((f + e)) -gt 0 ] || fail=$((fail + 1)) # a leak, after all checks passed
    echo "FAILED $1, $4 $2 (rc $rc)"; tail -n 20 "$log/$3.log"
  else echo "ok $1, $4 $2: $summary"; fi
}
benchmark() { # name, command: does it run and write JSON?
  local name=$1; shift
  if "$@" --small 1 --json "$log/$name.json" > "$log/$name.log" 2>&1 && python3 -m json.tool "$log/$name.json" > /dev/null; then
    pass=$((pass + 1)); echo "ok $name"
  else fail=$((fail + 1)); echo "FAILED $name"; tail -n 20 "$log/$name.log"; fi
}
daemon() { # tests/e2e/test_cuda_shim.py, test_cuda_ranks.py and test_device.py, and the benchmarks on tiny shapes
  local py p q rc
  make -s -j"$(nproc)" BUILD="$BUILD" all cuda-shim "$BUILD/shim/bench_cuda" "$BUILD/device/bench_cuda_engine" ||
    { echo "tests: the build failed"; exit 1; }
  benchmark bench_cuda "$BUILD/shim/bench_cuda"
  benchmark bench_cuda_engine "$BUILD/device/bench_cuda_engine" --plugin "$(readlink -f "$BUILD/vramd-cuda-shim.so")" \
    --type q4_0 --batches 1,20 --context 40 --prefill 100 --steps 2 --reps 1
  benchmark bench_cuda_engine_int4 "$BUILD/device/bench_cuda_engine" --plugin "$(readlink -f "$BUILD/vramd-cuda-shim.so")" \
    --type bf16 --kv int4 --batches 1,20 --context 90 --prefill 100 --steps 2 --reps 1
  py=$(tools/venv.sh) || { echo "tests: no Python environment"; exit 1; }
  BUILD="$BUILD" VRAMD_TEST_CUDA_PLUGIN=$(readlink -f "$BUILD/vramd-cuda-shim.so") VRAMD_TEST_MODEL=none \
    "$py" -m pytest -q -p no:cacheprovider tests/e2e/test_{cuda_shim,cuda_ranks,device}.py > "$log/daemon.log" 2>&1; rc=$?
  p=$(sed -nE 's/(^|.* )([0-9]+) passed.*/\2/p' "$log/daemon.log" | tail -n 1)
  q=$(sed -nE 's/(^|.* )([0-9]+) (failed|error).*/\2/p' "$log/daemon.log" | tail -n 1)
  [ $rc -eq 0 ] || q=${q:-1}
  pass=$((pass + ${p:-0})); fail=$((fail + ${q:-0}))
  if [ $rc -eq 0 ]; then echo "ok tests/e2e/test_{cuda_shim,cuda_ranks,device}.py: $p"; else tail -n 60 "$log/daemon.log"; fi
}
if [ ${#tests[@]} -gt 0 ]; then
  suite "$BUILD" "${ORDERS:-0 1 2 3}" order
  asan_orders=${ASAN_ORDERS-4}
  [ -z "$asan_orders" ] ||
    suite "$BUILD/cuda-asan" "$asan_orders" asan-order MODULES_IN="$BUILD" SAN="-fsanitize=address,undefined -fno-sanitize-recover=all"
fi
[ -n "$name" ] && [ "$name" != daemon ] || daemon
echo "$pass passed, $fail failed"
[ "$fail" -eq 0 ]
