#!/usr/bin/env bash
# Checks and measures the CUDA engine on a machine with a GPU, and prints one table last.
#   tools/device.sh build           with nvcc: makes build/device, all that a run needs (under 58 MiB)
#   tools/device.sh run [RESULTS]   with a GPU and build/device; no compiler, nothing to install; under 9 minutes
#   tools/device.sh [RESULTS]       both, where there is nvcc; otherwise a run
# RESULTS (build/device/results) takes every log and, as JSON, every figure. A stage that fails or runs out of
# time does not stop the others. Exit code: 0 all is well, 1 a stage failed, 2 usage, 3 no device, 4 not built.
set -u
from=$PWD
cd "$(dirname "$0")/.." || exit 2
BUILD=${BUILD:-build}
D=$BUILD/device
MODELS="F16 BF16 Q4_0"
MOST_KIB=59392
SECONDS_IN_ALL=${SECONDS_IN_ALL:-520}

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
  for f in "$D"/test_* "$D"/bench_* "$D/vramd-cuda.so"; do
    more=$(ldd "$f" | grep -vE 'linux-vdso|ld-linux|/lib(c|m|dl|pthread|rt)\.so' | tr -s '\t\n' ' ')
    [ -z "$more" ] || { say "$f wants$more"; rc=1; }
  done
  return $rc
}

build() {
  local py size
  make -s -j"$(nproc)" BUILD="$BUILD" all cuda engine-tools "$D/vramd" || return 1
  cp "$BUILD/vramd-cuda.so" "$D/vramd-cuda.so" && libraries && needs_libc_alone || return 1
  py=$(tools/venv.sh) || return 1
  for m in $MODELS; do "$py" tests/e2e/tiny_model.py "$D/tiny-$m.gguf" "$m" --wide || return 1; done
  git describe --always --dirty > "$D/commit" 2> /dev/null || echo unknown > "$D/commit"
  size=$(du -sk --exclude=results "$D" | cut -f1)
  say "$D: $size KiB"
  [ "$size" -le $MOST_KIB ] || { say "that is more than $MOST_KIB KiB"; return 1; }
}

# ---- run: stages

left() { local n=$((SECONDS_IN_ALL - SECONDS)); echo $((n > 0 ? n : 0)); }
row() { printf '%-34s %-8s %s\n' "$1" "$2" "$3" >> "$R/stages"; [ "$2" != FAILED ] || failed=1; }

# name, seconds, command: its log is $R/NAME.log, its row tells how it ended.
stage() {
  local name=$1 most=$2 rc t=$SECONDS
  shift 2
  [ "$(left)" -ge 5 ] || { row "$name" skipped "no time left"; return 1; }
  [ "$most" -le "$(left)" ] || most=$(left)
  say "$name"
  timeout -k 5 "$most" "$@" > "$R/$name.log" 2>&1; rc=$?
  case $rc in
    0) row "$name" ok "$((SECONDS - t)) s $(grep -h 'answers are equal' "$R/$name.log")" ;;
    124|137) row "$name" FAILED "not done after $most s; see $name.log" ;;
    *) row "$name" FAILED "rc $rc: $(tail -n 1 "$R/$name.log" | cut -c1-120)" ;;
  esac
  return $rc
}

# Every test of instructions and operations, one on each core; each is one row.
cases_of() { # some of test_engine's ask the shim
  case $1 in */test_engine) export CK_RUN_CASE=anywhere ;; esac
}
one_test() { cases_of "$1"; CK_DEFAULT_TIMEOUT=0 timeout -k 5 "$2" "$1" > "$R/$(basename "$1").log" 2>&1; echo $? > "$R/$(basename "$1").rc"; }
tests() {
  local t n rc most=$(($(left) / 2))
  [ $most -le 100 ] || most=100
  say "operation tests"
  [ "$(left)" -ge 5 ] || { row tests skipped "no time left"; return; }
  printf '%s\0' "$D"/test_* | xargs -0 -P "$(nproc)" -I{} bash -c 'one_test "$1" "$2"' _ {} "$most"
  for t in "$D"/test_*; do
    n=$(basename "$t") rc=$(cat "$R/$n.rc")
    if [ "$rc" = 0 ]; then row "$n" ok "$(grep -E '^[0-9]+%: Checks' "$R/$n.log")"
    else row "$n" FAILED "rc $rc: $(grep -E '^[0-9]+%: Checks|:[EF]:' "$R/$n.log" | head -n 2 | tr '\n' ' ' | cut -c1-160)"; fi
  done
}

# Tests without forking under compute-sanitizer. What has found nothing by its time is well so far.
one_sanitized() { # tool, test, seconds
  local log; log=$R/$1-$(basename "$2").log
  cases_of "$2"
  CK_FORK=no timeout -k 5 "$3" "$SANITIZER" --tool "$1" --error-exitcode 9 "$2" > "$log" 2>&1
  echo $? > "${log%.log}.rc"
}
sanitize() {
  local t tool most rc n=0 bad=0 cut=0 names=
  SANITIZER=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null)
  [ -n "$SANITIZER" ] || { row compute-sanitizer skipped "there is none"; return; }
  [ "$(left)" -ge 20 ] || { row compute-sanitizer skipped "no time left"; return; }
  export SANITIZER
  say "compute-sanitizer"
  most=$(($(left) / 4)); [ $most -le 45 ] || most=45
  for tool in memcheck racecheck; do for t in "$D"/test_*; do printf '%s\0' "$tool" "$t" "$most"; done; done |
    xargs -0 -n 3 -P 8 bash -c 'one_sanitized "$@"' _
  for tool in memcheck racecheck; do
    n=0 bad=0 cut=0 names=
    for t in "$D"/test_*; do
      rc=$(cat "$R/$tool-$(basename "$t").rc" 2> /dev/null || echo 1) n=$((n + 1))
      if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then cut=$((cut + 1)); rc=0; fi
      # The tool's errors end with 9, a failed check with 1; hazards are counted on the last line.
      if [ "$rc" != 0 ] || grep -qE 'ERROR SUMMARY: [1-9]|RACECHECK SUMMARY: [1-9]' "$R/$tool-$(basename "$t").log"; then
        bad=$((bad + 1)); names="$names $(basename "$t")"; fi
    done
    if [ $bad = 0 ]; then row "$tool" ok "$n programs, $cut of them cut off after $most s without an error"
    else row "$tool" FAILED "of $n:$names"; fi
  done
}

# ---- run: the daemon

serve() { # label, options: sets PORT and PID
  local log=$R/serve-$1.log
  shift
  "$D/vramd" serve --port 0 --max-model-len 512 --max-num-seqs 8 --no-log-requests "$@" > "$log" 2>&1 &
  PID=$! PORT=
  for _ in $(seq 300); do
    PORT=$(sed -nE 's/.*READY: curl http:\/\/127\.0\.0\.1:([0-9]+).*/\1/p' "$log" | head -n 1)
    [ -z "$PORT" ] || return 0
    kill -0 $PID 2> /dev/null || break
    sleep 0.1
  done
  echo "the daemon does not start:"; tail -n 5 "$log"
  return 1
}
quit() { kill -TERM $PID 2> /dev/null; wait $PID; }
post() { curl -sS -m 30 "http://127.0.0.1:$PORT$1" -H 'Content-Type: application/json' -d "$2"; }
get() { curl -sS -m 30 "http://127.0.0.1:$PORT$1"; }

answers() { # four greedy answers: a line of tokens and one of their log-probabilities each
  local p a
  for p in "the garden of" "int main(void) {" "winter is" "x = 1"; do
    a=$(post /v1/completions "{\"prompt\":\"$p\",\"max_tokens\":24,\"temperature\":0,\"ignore_eos\":true,\"logprobs\":1}")
    sed -nE 's/.*"tokens":(\[.*\]),"token_logprobs":\[([^]]*)\].*/\1/p' <<< "$a"
    sed -nE 's/.*"token_logprobs":\[([^]]*)\].*/\1/p' <<< "$a"
  done
}
# Equal tokens must have log-probabilities nearer than the tolerance; after a near-tie the texts part.
compare() { # cpu, cuda, tolerance
  paste -d '\n' "$1" "$2" | awk -v most="$3" '
    NR % 4 == 1 { a = $0 } NR % 4 == 2 { b = $0 }
    NR % 4 == 3 { n = split($0, x, ",") }
    NR % 4 == 0 {
      split($0, y, ","); answers++; same += a == b
      for (i = 1; i <= n; i++) {
        d = x[i] - y[i]; if (d < 0) d = -d
        if (a != b && d > most) break
        compared++; if (d > worst) worst = d
      }
    }
    END { printf "%d of %d answers are equal, %d log-probabilities, at most %.4f apart\n", same, answers, compared, worst
          exit !(answers == 4 && same > 0 && compared >= 48 && worst <= most) }'
}

check_daemon() { # type of weights, tolerance
  local m=$D/tiny-$1.gguf a
  trap 'kill -KILL $PID 2> /dev/null' EXIT
  serve "cpu-$1" --model "$m" --backend cpu --activation-dtype f32 --kv-cache-dtype f32 || return 1
  answers > "$R/answers-cpu-$1"
  quit || return 1
  serve "cuda-$1" --model "$m" --backend cuda --cuda-plugin "$D/vramd-cuda.so" --memory 2GiB || return 1
  answers > "$R/answers-cuda-$1"
  a=$(post /v1/chat/completions '{"messages":[{"role":"user","content":"a colour"}],"max_tokens":8,"temperature":0}')
  grep -q '"role":"assistant"' <<< "$a" || { echo "chat: $a"; return 1; }
  a=$(post /v1/completions '{"prompt":"count","max_tokens":16,"temperature":0,"stream":true}')
  grep -q '^data: \[DONE\]' <<< "$a" || { echo "stream: $a"; return 1; }
  curl -sS -m 1 "http://127.0.0.1:$PORT/v1/completions" -d '{"prompt":"gone","max_tokens":400,"ignore_eos":true}' > /dev/null 2>&1
  get /metrics > "$R/metrics-$1"; grep -q '^vramd_memory_bytes' "$R/metrics-$1" || { echo "no metrics"; return 1; }
  get /v1/memory > "$R/memory-$1.json"; grep -q '"device":{"name":"cuda:0"' "$R/memory-$1.json" || { echo "no device"; return 1; }
  curl -sS -m 30 -H 'Accept: text/plain' "http://127.0.0.1:$PORT/v1/memory" > "$R/memory-$1.txt"
  quit || { echo "the daemon ended with $?"; return 1; }
  compare "$R/answers-cpu-$1" "$R/answers-cuda-$1" "$2"
}
daemon() {
  local m
  command -v curl > /dev/null || { row daemon skipped "there is no curl"; return; }
  for m in F16:0.03 BF16:0.2 Q4_0:0.5; do
    stage "daemon-${m%:*}" 40 bash -c "check_daemon ${m%:*} ${m#*:}"
  done
}

# ---- run

ceiling() { sed -nE "s/^ceiling $1 +([0-9.]+).*/\1/p" "$R/operations.log" 2> /dev/null | head -n 1; }

run() {
  local info d t
  SECONDS=0
  [ -x "$D/bench_cuda" ] && [ -x "$D/vramd" ] || { say "$D is not complete: run tools/device.sh build where there is nvcc"; exit 4; }
  [ -e "$R/stages" ] || [ -z "$(ls -A "$R" 2> /dev/null)" ] || { say "$R has files that are not of a run before: name another"; exit 2; }
  mkdir -p "$R" && rm -f "$R"/* || exit 2
  # The CUDA library of matrix products, wherever this machine has it.
  for d in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib \
    $(python3 -c 'import nvidia, os; print(*(os.path.join(p, s, "lib") for p in nvidia.__path__ for s in ("cu13", "cublas")))' 2> /dev/null); do
    if [ -e "$d/libcublasLt.so.13" ] || [ -e "$d/libcublasLt.so.12" ]; then
      export LD_LIBRARY_PATH=$d${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; break; fi
  done
  : > "$R/stages"
  info=$("$D/bench_cuda" --info 2>&1) || { say "no CUDA device here: $info"; exit 3; }
  failed=0
  export D R
  export -f cases_of one_test one_sanitized serve quit post get answers compare check_daemon
  stage operations 100 "$D/bench_cuda" --json "$R/cuda.json" --commit "$(cat "$D/commit")"
  for t in bf16 q4_0; do
    stage "engine-$t" 100 "$D/bench_cuda_engine" --plugin "$D/vramd-cuda.so" --type $t --json "$R/engine-$t.json" \
      --copy-gbs "$(ceiling copy)" --tflops "$(ceiling gemm)" --commit "$(cat "$D/commit")"
  done
  tests
  daemon
  sanitize
  { echo "$info; commit $(cat "$D/commit"); $SECONDS s"
    cat "$R/stages"
    grep -hE '^(ceiling|op) ' "$R/operations.log" 2> /dev/null | grep -vE ' rows +(4|8) '
    grep -hE '^(decode|prefill|memory)' "$R"/engine-*.log 2> /dev/null
  } > "$R/table"
  echo; cat "$R/table"
  exit $failed
}

mode=both
case ${1:-} in
  build|run) mode=$1; shift ;;
  -*) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
case ${1:-} in
  '') R=$D/results ;;
  /*) R=$1 ;;
  *) R=$from/$1 ;;
esac
HAVE_NVCC=$(ls "${CUDA:-/usr/local/cuda}/bin/nvcc" 2> /dev/null)
if [ $mode = build ] || { [ $mode = both ] && [ -n "$HAVE_NVCC" ]; }; then
  [ -n "$HAVE_NVCC" ] || { say "no nvcc here (set CUDA=)"; exit 4; }
  build || { say "the build failed"; exit 1; }
fi
[ $mode = build ] || run
