#!/usr/bin/env bash
# Checks and measures the CUDA engine on a machine with a GPU; what matters most is printed last.
#   tools/device.sh build             with nvcc: makes build/device, all that a run needs (under 58 MiB)
#   tools/device.sh first [RESULTS]   ceilings, tests, operations, engine, daemon, counters, compute-sanitizer: 350 s
#   tools/device.sh second [RESULTS]  long contexts, more batches and types, types of KV cache, other engines, race checks: 320 s
# A run needs a GPU, build/device and python3; no compiler, nothing to install. A stage that fails or runs out of time
# does not stop the others. RESULTS (build/device/results) takes every log. results.tgz and table.txt are made again
# after each stage, in $OUT where that is set, otherwise in RESULTS.
# Exit code: 0 all is well, 1 a stage failed, 2 usage, 3 no device, 4 not built.
# Environment: DEVICE (build/device), BUILD (build/sm_90: its objects), CUDA_ARCH (sm_90), SECONDS_IN_ALL.
set -u
from=$PWD
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build/sm_90}
D=${DEVICE:-build/device}
MODELS="F16 BF16 Q4_0"
SECOND_TESTS=(prim linear_few quant_few linear_packed attn_decode engine)
MOST_KIB=59392

say() { echo "device.sh: $*"; }

# ---- build

libraries() { # what the daemon needs beside libc
  local so
  rm -rf "${D:?}/lib"; mkdir -p "$D/lib"
  ldd "$D/vramd" | sed -nE 's/^\s*(\S+) => (\/\S+) .*/\1 \2/p' | while read -r name so; do
    case $name in libc.so*|libm.so*|libpthread.so*|libdl.so*|librt.so*|ld-linux*) continue ;; esac
    cp -L "$so" "$D/lib/$name" || exit 1
  done
}

needs_libc_alone() {
  local f rc=0 more
  for f in "$D"/test_* "$D"/bench_* "$D"/probe_cuda "$D/load" "$D/vramd-cuda.so"; do
    more=$(ldd "$f" | grep -vE 'linux-vdso|ld-linux|/lib(c|m|dl|pthread|rt)\.so' | tr -s '\t\n' ' ')
    [ -z "$more" ] || { say "$f needs$more"; rc=1; }
  done
  return $rc
}

build() {
  local py size t
  make -s -j"$(nproc)" BUILD="$BUILD" DEVICE="$D" CUDA_ARCH="${CUDA_ARCH:--gencode arch=compute_90,code=sm_90}" \
    cuda engine-tools "$D/vramd" || return 1
  cp "$BUILD/vramd-cuda.so" "$D/vramd-cuda.so" && libraries && needs_libc_alone || return 1
  py=$(tools/venv.sh) || return 1
  for m in $MODELS; do "$py" tests/e2e/tiny_model.py "$D/tiny-$m.gguf" "$m" --wide || return 1; done
  git describe --always --dirty > "$D/commit" 2> /dev/null || echo unknown > "$D/commit"
  # The peer takes the place of what the second run does not need.
  if [ -d "$D/peer" ]; then
    say "with $D/peer this is for the second run alone"
    rm -f "$D"/tiny-*.gguf "$D/probe_cuda"
    for t in "$D"/test_*; do [[ " ${SECOND_TESTS[*]} " == *" ${t##*/test_} "* ]] || rm "$t"; done
  fi
  size=$(du -sk --exclude=results "$D" | cut -f1)
  say "$D: $size KiB"
  [ "$size" -le $MOST_KIB ] || { say "that is more than $MOST_KIB KiB"; return 1; }
}

# ---- results

left() { local n=$((SECONDS_IN_ALL - SECONDS)); echo $((n > 0 ? n : 0)); }
row() { # stage, how it ended, a note
  printf '%-18s %-8s %s\n' "$1" "$2" "$3" | tee -a "$R/stages"
  [ "$2" != FAILED ] || failed=1
}

# One line for each operation and type: rows: time, share of the floor.
operations_in_short() {
  cat "$R"/{operations,ceilings}.log 2> /dev/null | awk '$1 == "ceiling" || $1 == "without" { print }
    $1 == "op" { k = sprintf("%-14s %-4s", $2, $3); if (!(k in line)) key[n++] = k; line[k] = line[k] sprintf(" | %s: %.1f us %s", $5, $6, $12) }
    END { for (i = 0; i < n; i++) print key[i] line[key[i]] }'
}
table() {
  echo "$INFO; commit $(cat "$D/commit" 2> /dev/null); $SECONDS s"
  grep -hE '^(read|chain|copy) ' "$R/probe.log" 2> /dev/null
  operations_in_short
  grep -hE '^(decode|prefill) |^memory:' "$R"/{context,batches,engine,kv,early,late}-*.log 2> /dev/null
  grep -hE '^(torch|load|counters) |^\| llama' "$R"/*.log 2> /dev/null
  cat "$R/stages"
}
keep() {
  local to=${OUT:-$R}
  table > "$R/table.txt"
  [ "$to" = "$R" ] || cp "$R/table.txt" "$to/table.txt"
  tar czf "$to/results.new" -C "$R" --exclude='results.*' . 2> /dev/null
  [ $? -le 1 ] && mv -f "$to/results.new" "$to/results.tgz"
}

# name, seconds, command: its log is $R/NAME.log, whose end is printed where it fails; its row tells how it ended.
stage() {
  local name=$1 most=$2 rc t=$SECONDS log=$R/$1.log
  shift 2
  [ "$(left)" -ge 5 ] || { row "$name" skipped "no time left"; return 1; }
  [ "$most" -le "$(left)" ] || most=$(left)
  timeout -k 5 "$most" "$@" > "$log" 2>&1; rc=$?
  [ $rc = 0 ] || { echo "-- the end of $name.log:"; tail -n 25 "$log" | cut -c1-240; }
  case $rc in
    0) row "$name" ok "$((SECONDS - t)) s $(grep -hE 'answers are equal|tokens; opened' "$log")" ;;
    124|137) row "$name" FAILED "not done after $most s" ;;
    *) row "$name" FAILED "rc $rc: $(grep . "$log" | tail -n 1 | cut -c1-120)" ;;
  esac
  keep
  return $rc
}

# ---- the machine

machine() {
  nvidia-smi --format=csv --query-gpu=name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,clocks.max.sm,power.limit,ecc.mode.current,persistence_mode
  uname -r; ldd --version | head -n 1; nproc; grep -E 'MemTotal|MemAvailable' /proc/meminfo; df -h /tmp | tail -n 1
  for c in nvcc ncu compute-sanitizer cuobjdump curl python3; do echo "$c: $(tool $c)"; done
  for f in "$D"/vramd "$D"/vramd-cuda.so "$D"/bench_cuda "$D"/test_engine; do ldd "$f" | grep 'not found' && echo "^ $f"; done
  ls -l /usr/local/cuda*/lib64/libcublasLt.so.* 2> /dev/null
  echo "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}"
  python3 -c 'import importlib.metadata as m; print(*(f"{d.name} {d.version}" for d in m.distributions()
      if d.name in ("torch", "triton", "transformers", "nvidia-cublas", "numpy", "gguf")), sep="; ")'
  true
}

tool() { # where a program of CUDA is, in PATH or beside it
  command -v "$1" || ls -d /usr/local/cuda*/bin/"$1" /usr/local/cuda*/compute-sanitizer/"$1" /opt/nvidia/nsight-compute/*/"$1" 2> /dev/null | head -n 1
}

# The CUDA library of matrix products, wherever this machine has it.
find_cublas() {
  local d
  for d in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib \
    $(python3 -c 'import nvidia, os; print(*(os.path.join(p, s, "lib") for p in nvidia.__path__ for s in ("cu13", "cublas")))' 2> /dev/null); do
    if [ -e "$d/libcublasLt.so.13" ] || [ -e "$d/libcublasLt.so.12" ]; then
      export LD_LIBRARY_PATH=$d${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; return; fi
  done
}

# ---- tests

cases_of() { # some of test_engine's ask the shim
  case $1 in */test_engine) export CK_RUN_CASE=anywhere ;; esac
}
# Without a process for each case: a context of the device takes long. What crashes runs again, with one.
one_test() { # test, seconds
  local log rc
  log=$R/$(basename "$1").log
  cases_of "$1"
  export CK_DEFAULT_TIMEOUT=0
  CK_FORK=no timeout -k 5 "$2" "$1" > "$log" 2>&1; rc=$?
  echo $rc > "${log%.log}.rc"
  case $rc in 0|1|124|137) return ;; esac
  timeout -k 5 "$2" "$1" >> "$log" 2>&1
}
tests() { # seconds, tests: side by side, one on each core; each is one row
  local t n rc most=$1
  shift
  [ "$(left)" -ge 5 ] || { row tests skipped "no time left"; return; }
  [ "$most" -le "$(left)" ] || most=$(left)
  # shellcheck disable=SC2016
  printf '%s\0' "$@" | xargs -0 -P "$(nproc)" -I{} bash -c 'one_test "$1" "$2"' _ {} "$most"
  for t; do
    n=$(basename "$t") rc=$(cat "$R/$(basename "$t").rc")
    if [ "$rc" = 0 ]; then row "$n" ok "$(grep -E '^[0-9]+%: Checks' "$R/$n.log")"; continue; fi
    echo "-- $n:"
    grep -E ':[EF]:' "$R/$n.log" | head -n 5 | cut -c1-240 | grep . || tail -n 25 "$R/$n.log" | cut -c1-240
    row "$n" FAILED "rc $rc $(grep -E '^[0-9]+%: Checks' "$R/$n.log" | tail -n 1)"
  done
  keep
}

# Tests without forking under compute-sanitizer. What has found nothing by its time is well so far.
one_sanitized() { # tool, test, seconds
  local log; log=$R/$1-$(basename "$2").log
  cases_of "$2"
  CK_FORK=no CK_DEFAULT_TIMEOUT=0 timeout -k 5 "$3" "$SANITIZER" --tool "$1" --error-exitcode 9 "$2" > "$log" 2>&1
  echo $? > "${log%.log}.rc"
}
sanitize() { # tests: memcheck and racecheck of each, eight side by side, in the time that is left
  local t tool most rc bad cut names log
  SANITIZER=$(tool compute-sanitizer)
  [ -n "$SANITIZER" ] || { row compute-sanitizer skipped "there is none"; return; }
  [ "$(left)" -ge 20 ] || { row compute-sanitizer skipped "no time left"; return; }
  export SANITIZER
  most=$(($(left) / (($# * 2 + 7) / 8) - 1)); [ $most -le 60 ] || most=60
  for tool in memcheck racecheck; do for t; do printf '%s\0' "$tool" "$t" "$most"; done; done |
    xargs -0 -n 3 -P 8 bash -c 'one_sanitized "$@"' _
  for tool in memcheck racecheck; do
    bad=0 cut=0 names=
    for t; do
      log=$R/$tool-$(basename "$t").log rc=$(cat "$R/$tool-$(basename "$t").rc" 2> /dev/null || echo 1)
      if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then cut=$((cut + 1)); rc=0; fi
      # The tool's errors end with 9, a failed check with 1; hazards are counted on the last line.
      if [ "$rc" != 0 ] || grep -qE 'ERROR SUMMARY: [1-9]|RACECHECK SUMMARY: [1-9]' "$log"; then
        bad=$((bad + 1)); names="$names $(basename "$t")"
        echo "-- $tool $(basename "$t"), rc $rc:"
        grep -m 4 -E 'Invalid|Error:|Race|hazard|    at |:[EF]:' "$log" | cut -c1-200
      fi
    done
    if [ $bad = 0 ]; then row "$tool" ok "$# programs, $cut of them cut off after $most s without an error"
    else row "$tool" FAILED "of $#:$names"; fi
  done
  keep
}

# ---- figures

ceiling() { cat "$R/operations.log" "$R/ceilings.log" 2> /dev/null | sed -nE "s/^ceiling $1 +([0-9.]+).*/\1/p" | head -n 1; }

engine() { # name, seconds, type, options
  local name=$1 most=$2 type=$3
  shift 3
  stage "$name" "$most" "$D/bench_cuda_engine" --plugin "$D/vramd-cuda.so" --type "$type" --json "$R/$name.json" \
    --copy-gbs "$(ceiling copy)" --tflops "$(ceiling gemm)" --commit "$(cat "$D/commit")" "$@"
}

# Counters of a kernel, of its first launches; the kernel's name, OP:ROWS of bench_cuda.
NCU_METRICS=gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,lts__throughput.avg.pct_of_peak_sustained_elapsed
NCU_METRICS=$NCU_METRICS,sm__inst_issued.avg.pct_of_peak_sustained_active,sm__warps_active.avg.pct_of_peak_sustained_active,launch__grid_size,launch__registers_per_thread
counters() {
  local ncu report=$R/ncu-$1
  ncu=$(tool ncu)
  [ -n "$ncu" ] || { row "ncu-$1" skipped "there is no ncu"; return; }
  stage "ncu-$1" 30 "$ncu" --clock-control none -k "regex:$1" -c 3 --set full --metrics "$NCU_METRICS" -f -o "$report" \
    "$D/bench_cuda" --only "$2" || return
  "$ncu" -i "$report.ncu-rep" --page raw --csv > "$report.csv" 2>> "$R/ncu-$1.log"
  python3 - "$1 $2" "$report.csv" "$NCU_METRICS" >> "$R/ncu-$1.log" 2>&1 << 'END'
import csv, sys
name, path, metrics = sys.argv[1:]
rows = [r for r in csv.reader(open(path)) if len(r) > 5]
head, units = rows[0], rows[1]
for r in rows[2:]:
    found = [(m, head.index(m)) for m in metrics.split(",") if m in head]
    print("counters", name, "; ".join(f"{m.split('.')[0]} {r[i]} {units[i]}" for m, i in found))
END
  grep '^counters ' "$R/ncu-$1.log" || tail -n 3 "$R/ncu-$1.log"
  keep
}

daemon() { # name, seconds, arguments of device_daemon.py
  local name=$1 most=$2 command=$3
  shift 3
  command -v python3 > /dev/null || { row "$name" skipped "there is no python3"; return; }
  stage "$name" "$most" python3 tools/device_daemon.py "$command" "$D" "$R" "$@"
}

# ---- runs

first() {
  local t others=()
  for t in "$D"/test_*; do [ "$t" = "$D/test_prim" ] || others+=("$t"); done
  stage machine 20 bash -c machine; cat "$R/machine.log"
  stage probe 25 "$D/probe_cuda"
  tests 20 "$D/test_prim" # if these fail, no figure below means anything
  tests 75 "${others[@]}"
  stage operations 50 "$D/bench_cuda" --json "$R/operations.json" --commit "$(cat "$D/commit")"
  engine engine-bf16 45 bf16
  engine engine-q4_0 45 q4_0
  # Early launches of kernels in every step and in none: what they are worth, and whether an error is theirs.
  for t in bf16 q4_0; do
    VRAMD_CUDA_EARLY=1 engine early-$t 30 $t --batches 1,2,4,8,16 --prefill 1024
    VRAMD_CUDA_EARLY=0 engine late-$t 30 $t --batches 1,2,4,8,16 --prefill 1024
  done
  for t in F16:0.03 BF16:0.2 Q4_0:0.5; do daemon "daemon-${t%:*}" 40 compare "${t%:*}" "${t#*:}"; done
  daemon daemon-full 60 full F16 2560
  counters k_linear_few gate_up:1
  counters k_few gate_up:1
  counters k_packed gate_up:32
  counters attn_decode attn_decode:64
  sanitize "$D"/test_*
}

# A model of random weights for the engines that read a file, ours end to end among them.
peers() {
  local model=${TMPDIR:-/tmp}/vramd-8b-q4_0.gguf
  stage peer-torch 60 python3 bench/peer_torch.py
  if stage model 60 python3 bench/make_model.py "$model" --shape 8b --type Q4_0; then
    [ ! -x "$D/peer/llama-bench" ] || stage peer-llama 50 "$D/peer/llama-bench" -m "$model" -ngl 99 -fa 1 -r 3 -p 4096 -n 64 -d 0,1024
    daemon load-q4_0 60 load "$model" 1,16,64
  fi
  rm -f "$model"
}

second() {
  stage ceilings 20 "$D/bench_cuda" --only ceilings:1
  engine context-8k 45 bf16 --context 8192 --batches 1,8,32 --prefill 8192
  engine batches-q4_0 45 q4_0 --batches 1,2,8,9,16,32,33,48,64,128,256
  local t
  for t in f16 q8_0 q4_1; do engine "engine-$t" 30 $t --batches 1,16,64; done
  # What a cache of codes is worth where attention reads much; int4's rate against f16's is the bar.
  for t in f16 int8 int4; do engine "kv-$t" 25 bf16 --kv $t --context 4096 --batches 1,32 --prefill 4096 --reps 2; done
  peers
  sanitize "${SECOND_TESTS[@]/#/$D/test_}"
}

run() { # first or second
  SECONDS=0
  chmod u+x "$D"/* "$D"/peer/* 2> /dev/null
  if [ ! -x "$D/bench_cuda" ] || [ ! -x "$D/vramd" ]; then say "$D is not complete: run tools/device.sh build where there is nvcc"; exit 4; fi
  [ -e "$R/stages" ] || [ -z "$(ls -A "$R" 2> /dev/null)" ] || { say "$R has files that are not of a run before: name another"; exit 2; }
  mkdir -p "$R" ${OUT:+"$OUT"} && rm -rf "${R:?}"/* || exit 2
  find_cublas
  : > "$R/stages"
  INFO=$("$D/bench_cuda" --info 2>&1) || { say "no CUDA device here: $INFO"; exit 3; }
  failed=0
  export D R
  export -f cases_of one_test one_sanitized machine tool
  "$1"
  keep
  echo; cat "$R/table.txt"
  exit $failed
}

mode=${1:-}
case $mode,$# in
  build,1|first,[12]|second,[12]) ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
case ${2:-} in
  '') R=$D/results ;;
  /*) R=$2 ;;
  *) R=$from/$2 ;;
esac
case $mode in
  build)
    [ -e "${CUDA:-/usr/local/cuda}/bin/nvcc" ] || { say "no nvcc here (set CUDA=)"; exit 4; }
    build || { say "the build failed"; exit 1; } ;;
  first) SECONDS_IN_ALL=${SECONDS_IN_ALL:-350}; run first ;;
  second) SECONDS_IN_ALL=${SECONDS_IN_ALL:-320}; run second ;;
esac
