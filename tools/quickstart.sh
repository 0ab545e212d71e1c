#!/usr/bin/env bash
# Sets up, builds, gets a small real model (98 MB), serves it, asks for a completion and prints the
# memory table; then stops the server. Another model: MODEL=/path/to/file.gguf tools/quickstart.sh
#   --stay: leave the server running in the foreground afterwards (Ctrl-C stops it)
set -eu
cd "$(dirname "$0")/.."
tools/setup.sh
if ! command -v curl > /dev/null; then
  as_root=; [ "$(id -u)" = 0 ] || as_root=sudo
  $as_root apt-get install -y -qq curl > /dev/null
fi
make -s -j"$(nproc)"
model=${MODEL:-$(tools/get-model.sh)}
port=${PORT:-8000}
build/vramd serve --model "$model" --port "$port" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
for _ in $(seq 600); do
  curl -fs "http://127.0.0.1:$port/ready" > /dev/null 2>&1 && break
  kill -0 $server 2>/dev/null || { echo "the server did not start" >&2; exit 1; }
  sleep 0.1
done
# shellcheck disable=SC2016 # the quotes are shown, and $2 is expanded
ask() { echo; echo "\$ curl http://127.0.0.1:$port$1 ${2:+-d '$2'}"; }
body='{"prompt": "The capital of France is", "max_tokens": 24, "temperature": 0}'
ask /v1/completions "$body"
curl -fsS "http://127.0.0.1:$port/v1/completions" -H 'Content-Type: application/json' -d "$body"; echo
ask /v1/memory
curl -fsS -H 'Accept: text/plain' "http://127.0.0.1:$port/v1/memory"
if [ "${1:-}" = --stay ]; then wait $server; fi
