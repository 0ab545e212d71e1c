#!/usr/bin/env bash
# make soak: N mixed requests with random disconnects against a server of its own.
#   tools/soak.sh [N]      environment: BUILD (build), SEED
set -eu
cd "$(dirname "$0")/.."
n=${1:-10000}
model=${VRAMD_TEST_MODEL:-$(tools/get-model.sh)}
py=$(tools/venv.sh)
port=$("$py" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${BUILD:-build}/vramd" serve --model "$model" --port "$port" --max-model-len 1024 --kv-cache-tokens 8192 --no-log-requests &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 600); do
  "$py" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/ready')" 2> /dev/null && break
  sleep 0.1
done
"$py" tests/e2e/soak.py "http://127.0.0.1:$port" "$n" "${SEED:-1}"
kill -TERM $server
wait $server
