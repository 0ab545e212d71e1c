#!/usr/bin/env bash
# Builds llama.cpp from the source inside the llama-cpp-python sdist (about 10 minutes on 2 cores) in the
# cache, and prints the folder of its programs. On machines with AMX gcc 12 drops the stores of its
# tile configuration: a compiler barrier is put before _tile_loadconfig, or the peer dies of SIGILL.
#   build_peer.sh                 with all that this CPU has
#   build_peer.sh avx2|avxvnni    llama-bench alone, with no more than this, beside the first
#   build_peer.sh ik SOURCE       llama-bench of ik_llama.cpp from a clone of its repository (compared: 8337e4c, 2026-08-15)
set -eu
version=0.3.36
dir=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}/peer
src=$dir/llama_cpp_python-$version/vendor/llama.cpp
if [ "${1:-}" = ik ]; then
  cmake -S "${2:?a clone of ik_llama.cpp}" -B "$dir/ik" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DGGML_IQK_FA_ALL_QUANTS=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF >&2
  cmake --build "$dir/ik" -j"$(nproc)" --target llama-bench >&2
  echo "$dir/ik/bin"
  exit
fi
case ${1:-native} in
native) build=$src/build targets="llama-bench llama-server llama-quantize" isa=(-DGGML_NATIVE=ON) ;;
avx2 | avxvnni)
  build=$src/build-$1 targets=llama-bench
  isa=(-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON)
  if [ "$1" = avxvnni ]; then isa+=(-DGGML_AVX_VNNI=ON); fi ;;
*) echo "build_peer.sh: no such build: $1" >&2 && exit 2 ;;
esac
missing=
for target in $targets; do [ -x "$build/bin/$target" ] || missing=1; done
if [ "$missing" ]; then
  mkdir -p "$dir"
  [ -x "$dir/venv/bin/pip" ] || python3 -m venv "$dir/venv" >&2
  "$dir/venv/bin/pip" install -q scikit-build-core cmake ninja >&2
  if ! [ -d "$src" ]; then
    "$dir/venv/bin/pip" download -q --no-deps --no-binary llama-cpp-python --no-build-isolation \
      "llama-cpp-python==$version" -d "$dir" >&2
    tar -C "$dir" -xf "$dir/llama_cpp_python-$version.tar.gz"
    sed -i 's/^\( *\)_tile_loadconfig(/\1__asm__ __volatile__("" ::: "memory");\n\1_tile_loadconfig(/' \
      "$src"/ggml/src/ggml-cpu/amx/*.cpp
  fi
  "$dir/venv/bin/cmake" -S "$src" -B "$build" -DCMAKE_BUILD_TYPE=Release "${isa[@]}" \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_UI=OFF >&2
  # shellcheck disable=SC2086 # words on purpose
  "$dir/venv/bin/cmake" --build "$build" -j"$(nproc)" --target $targets >&2
fi
echo "$build/bin"
