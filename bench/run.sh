#!/usr/bin/env bash
# Runs one benchmark and stores its rows under bench/results/ with the CPU's flags.
#   bench/run.sh engine|activations|kv|http|metrics|startup|slo|fair|simulate|quantize|kv_disk|models|moe|experts|state|quantize_methods|qat|fit|scheduler|linear|published|grammar|resize|structured|speculation|ranks|tokenizer|template|reply [OPTIONS of the script]
# VRAMD_PEER_LLAMA: llama.cpp's build/bin (bench/build_peer.sh prints it); without it, vramd alone.
set -eu
cd "$(dirname "$0")/.."
export BUILD=${BUILD:-build}
what=${1:-engine}
shift || true
case $what in
engine)
  make -s BUILD="$BUILD" "$BUILD/bench_engine"
  "$(tools/venv.sh)" bench/bench_engine.py ${SHAPE:+--shape "$SHAPE"} ${CPU_ISA:+--cpu-isa "$CPU_ISA"} "$@" ;;
activations)
  make -s BUILD="$BUILD" "$BUILD/bench_engine"
  python3 bench/bench_activations.py "$@" ;;
kv)
  make -s BUILD="$BUILD" "$BUILD/bench_engine"
  python3 bench/bench_kv.py "$@" ;;
http) python3 bench/bench_http.py "$@" ;;
resize) python3 bench/bench_resize.py "$@" ;;
structured) python3 bench/bench_structured.py "$@" ;;
ranks)
  make -s BUILD="$BUILD" "$BUILD/vramd" "$BUILD/bench_ranks"
  python3 bench/bench_ranks.py "$@" ;;
speculation) python3 bench/bench_speculation.py "$@" ;;
metrics) python3 bench/bench_metrics.py "$@" ;;
slo) python3 bench/bench_slo.py "$@" ;;
fair) python3 bench/bench_fair.py "$@" ;;
simulate) python3 bench/bench_simulate.py "$@" ;;
startup) python3 bench/bench_startup.py "$@" ;;
quantize) python3 bench/bench_quantize.py "$@" ;;
kv_disk) python3 bench/bench_kv_disk.py "$@" ;;
models) python3 bench/bench_models.py "$@" ;;
moe)
  make -s BUILD="$BUILD" "$BUILD/bench_engine"
  "$(tools/venv.sh)" bench/bench_moe.py "$@" ;;
experts) "$(tools/venv.sh)" bench/bench_experts.py "$@" ;;
state)
  make -s BUILD="$BUILD" "$BUILD/vramd" "$BUILD/bench_engine"
  "$(tools/venv.sh)" bench/bench_state.py "$@" ;;
quantize_methods) "$(tools/venv.sh)" bench/bench_quantize_methods.py "$@" ;;
fit) python3 bench/bench_fit.py "$@" ;;
qat) "$(tools/venv.sh)" bench/qat.py "$@" ;;
tokenizer)
  make -s BUILD="$BUILD" "$BUILD/bench_tokenizer"
  python3 bench/bench_tokenizer.py "$@" ;;
grammar)
  make -s BUILD="$BUILD" "$BUILD/bench_grammar"
  python3 bench/store.py grammar "$BUILD/bench_grammar" "${@:-$VRAMD_TEST_MODEL}" ;;
published)
  make -s BUILD="$BUILD" "$BUILD/bench_linear"
  python3 bench/store.py linear-published "$BUILD/bench_linear" --type published "$@" ;;
scheduler | linear | template | reply)
  make -s BUILD="$BUILD" "$BUILD/bench_$what"
  python3 bench/store.py "$what" "$BUILD/bench_$what" "$@" ;;
*) echo "bench: there is no benchmark \"$what\"" >&2; exit 2 ;;
esac
