#!/usr/bin/env bash
# Builds llama.cpp from the source inside the llama-cpp-python sdist (about 10 minutes on 2 cores) in the
# cache, and prints the folder of its programs. On machines with AMX gcc 12 drops the stores of its
# tile configuration: a compiler barrier is put before _tile_loadconfig, or the peer dies of SIGILL.
set -eu
version=0.3.36
dir=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}/peer
src=$dir/llama_cpp_python-$version/vendor/llama.cpp
if ! [ -x "$src/build/bin/llama-bench" ] || ! [ -x "$src/build/bin/llama-quantize" ]; then
  mkdir -p "$dir"
  [ -x "$dir/venv/bin/pip" ] || python3 -m venv "$dir/venv" >&2
  "$dir/venv/bin/pip" install -q scikit-build-core cmake ninja >&2
  "$dir/venv/bin/pip" download -q --no-deps --no-binary llama-cpp-python --no-build-isolation \
    "llama-cpp-python==$version" -d "$dir" >&2
  tar -C "$dir" -xf "$dir/llama_cpp_python-$version.tar.gz"
  sed -i 's/^\( *\)_tile_loadconfig(/\1__asm__ __volatile__("" ::: "memory");\n\1_tile_loadconfig(/' \
    "$src"/ggml/src/ggml-cpu/amx/*.cpp
  "$dir/venv/bin/cmake" -S "$src" -B "$src/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_UI=OFF >&2
  "$dir/venv/bin/cmake" --build "$src/build" -j"$(nproc)" --target llama-bench llama-server llama-quantize >&2
fi
echo "$src/build/bin"
