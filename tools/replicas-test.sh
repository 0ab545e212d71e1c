#!/usr/bin/env bash
# Three daemons behind nginx and HAProxy (packages nginx-light, haproxy) with the files of deploy/: kills, restarts,
# affinity (tests/e2e/replicas.py). As root each daemon has a network namespace, behind a link with delay and loss;
# with LOOPBACK=1, or where namespaces or TUN devices are not to be had, all are on loopback.
#   tools/replicas-test.sh [MORE OPTIONS of replicas.py]
# environment: MINUTES (10), PROXIES ("nginx haproxy"), MODEL (a tiny one is made), BUILD (build), LOOPBACK,
# JSON (a file: the rows), SAVE=1 (bench/results/replicas-*.json). Exit status 77: no proxy is installed.
set -eu
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin
py=$(tools/venv.sh)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
model=${MODEL:-$tmp/tiny.gguf}
[ -n "${MODEL:-}" ] || "$py" tests/e2e/tiny_model.py "$model" Q8_0
more=(--model "$model" --seconds "$("$py" -c "print(60 * float('${MINUTES:-10}'))")")
if [ -n "${LOOPBACK:-}" ]; then
  more+=(--loopback)
elif ! { [ -w /dev/net/tun ] && unshare --net ip link set lo up; } 2> /dev/null; then
  echo "replicas-test: no network namespaces or no /dev/net/tun here (root has them): on loopback" >&2
  more+=(--loopback)
fi
n=0 failed=0
for proxy in ${PROXIES:-nginx haproxy}; do
  command -v "$proxy" > /dev/null || { echo "replicas-test: no $proxy; try: apt-get install nginx-light haproxy" >&2; continue; }
  n=$((n + 1))
  "$py" tests/e2e/replicas.py --proxy "$proxy" "${more[@]}" --json "$tmp/$proxy.row" "$@" || failed=1
done
[ $n != 0 ] || exit 77
rows="{\"rows\": [$(cat "$tmp"/*.row | paste -sd,)]}"
[ -z "${JSON:-}" ] || printf '%s\n' "$rows" > "$JSON"
if [ -n "${SAVE:-}" ]; then
  printf '%s\n' "$rows" > "$tmp/rows.json"
  VRAMD_TEST_MODEL=$model "$py" bench/store.py replicas cat "$tmp/rows.json"
fi
exit $failed
