#!/usr/bin/env bash
# make soak: N mixed requests with random disconnects, deadlines and key limits against a server of
# its own.
#   tools/soak.sh [N]      environment: BUILD (build), SEED
set -eu
cd "$(dirname "$0")/.."
n=${1:-10000}
model=${VRAMD_TEST_MODEL:-$(tools/get-model.sh)}
py=$(tools/venv.sh)
port=$("$py" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
file=$(mktemp) # 0600
keys=()
for limits in "" "rate=60/min" "tokens=2000/min" "concurrency=1 priority=-1"; do
  # shellcheck disable=SC2086
  keys+=("$("${BUILD:-build}/vramd" key "tenant${#keys[@]}" $limits 2>&1 >> "$file" | grep -o 'vk-[0-9a-f]*')")
done
"${BUILD:-build}/vramd" serve --model "$model" --port "$port" --max-model-len 1024 --kv-cache-tokens 8192 --no-log-requests \
  --api-keys-file "$file" &
server=$!
trap 'kill $server 2>/dev/null || true; rm -f "$file"' EXIT
for _ in $(seq 600); do
  "$py" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/ready')" 2> /dev/null && break
  sleep 0.1
done
"$py" tests/e2e/soak.py "http://127.0.0.1:$port" "$n" "${SEED:-1}" "${keys[@]}"
kill -TERM $server
wait $server
