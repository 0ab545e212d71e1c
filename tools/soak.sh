#!/usr/bin/env bash
# make soak: N mixed requests with random disconnects, deadlines and the limits of keys, against a server of its own that
# may take no more memory than its plan and 2%: by a cgroup (v2 or v1) where one can be made, else by RLIMIT_DATA. Then
# 5,000 idle streams. Prints the limit, a line of counts and what the cgroup saw.
#   tools/soak.sh [N]      environment: BUILD (build), SEED, IDLE_STREAMS (5000; 0: none)
set -eu
cd "$(dirname "$0")/.."
n=${1:-10000} vramd=${BUILD:-build}/vramd
export VRAMD_TEST_MODEL=${VRAMD_TEST_MODEL:-$(tools/get-model.sh)}
py=$(tools/venv.sh)
options=(--max-model-len 1024 --kv-cache-tokens 8192 --max-connections 96) # little that nobody uses
dir=$(mktemp -d) group='' kind='' server=''
done_with_it() {
  [ -z "$server" ] || kill "$server" 2> /dev/null || true
  [ -z "$server" ] || wait "$server" 2> /dev/null || true
  [ -z "$group" ] || rmdir "$group" || true
  rm -rf "$dir"
}
trap done_with_it EXIT

# A cgroup holds pages, those of the model's file included, and what the kernel has for the process.
group_v2() { # LIMIT
  mkdir "$group" && [ -w "$group/memory.max" ] && echo "$1" > "$group/memory.max" && { echo 0 > "$group/memory.swap.max" || true; }
}
group_v1() { # LIMIT; memsw is there where swap is counted, and may not be less than the limit
  mkdir "$group" && [ -w "$group/memory.limit_in_bytes" ] && echo "$1" > "$group/memory.limit_in_bytes" && { echo "$1" > "$group/memory.memsw.limit_in_bytes" || true; }
}
seen_by_v2() {
  echo "memory.peak $(cat "$group/memory.peak" || true), memory.events $(paste -sd' ' "$group/memory.events")"
  grep -E '^(anon|file|kernel|sock) ' "$group/memory.stat" | paste -sd' '
}
seen_by_v1() {
  local f
  for f in memory.max_usage_in_bytes memory.failcnt memory.kmem.max_usage_in_bytes; do echo -n "$f $(cat "$group/$f"), "; done
  grep oom_kill' ' "$group/memory.oom_control"
  grep -E '^(rss|cache|mapped_file) ' "$group/memory.stat" | paste -sd' '
}
killed() { # by the kernel, in the group
  cat "$group/memory.events" "$group/memory.oom_control" 2> /dev/null | sed -n 's/^oom_kill //p'
}
open_group() { # LIMIT; sets group and kind
  for kind in v2 v1; do
    group=/sys/fs/cgroup/vramd-soak-$$
    [ $kind = v2 ] || group=/sys/fs/cgroup/memory/vramd-soak-$$
    { "group_$kind" "$1"; } 2> /dev/null && return
    rmdir "$group" 2> /dev/null || true
  done
  group=
  return 1
}

touch "$dir/keys"
chmod 600 "$dir/keys"
for tenant in "free" "slow rate=60/min" "small tokens=2000/min" "narrow concurrency=1 priority=-1"; do
  # shellcheck disable=SC2086
  "$vramd" key $tenant >> "$dir/keys" 2>> "$dir/secrets"
done
mapfile -t keys < <(grep -o 'vk-[0-9a-f]\{64\}' "$dir/secrets")
options+=(--api-keys-file "$dir/keys")
plan=$("$vramd" plan --json "${options[@]}" "$VRAMD_TEST_MODEL" |
  "$py" -c 'import json, sys; p = json.load(sys.stdin); print(max(p["total_bytes"], p["load_peak_bytes"]))')
limit=$((plan + plan / 50))
if open_group "$limit"; then
  dd if="$VRAMD_TEST_MODEL" iflag=nocache count=0 status=none # what is read of it shall count in this group
  run=(sh -c "echo \$\$ > $group/cgroup.procs; exec \"\$@\"" sh)
  echo "soak: plan $plan bytes, limit $limit of a cgroup $kind"
else
  # The limit counts addresses, not pages. What of a stack is never touched is not in the plan: small stacks, and those
  # of 6 threads and the engine's added.
  stack=256
  data=$((limit + (6 + $(nproc)) * stack * 1024))
  run=(sh -c "ulimit -s $stack; exec prlimit --data=$data \"\$@\"" sh)
  echo "soak: plan $plan bytes, no cgroup: RLIMIT_DATA $data ($limit and stacks of $stack KiB)"
fi
port=$("$py" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"${run[@]}" "$vramd" serve --model "$VRAMD_TEST_MODEL" --port "$port" "${options[@]}" --no-log-requests &
server=$!
for _ in $(seq 600); do
  "$py" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/ready')" 2> /dev/null && break
  kill -0 "$server"
  sleep 0.1
done
"$py" tests/e2e/soak.py "http://127.0.0.1:$port" "$n" "${SEED:-1}" "${keys[@]}"
if [ -n "$group" ]; then
  "seen_by_$kind" | sed "s/^/soak: /"
  [ "$(killed)" = 0 ]
fi
kill -TERM "$server"
wait "$server"
server=
[ "${IDLE_STREAMS:-5000}" = 0 ] ||
  BUILD=${BUILD:-build} IDLE_STREAMS=${IDLE_STREAMS:-5000} "$py" -m pytest -q -p no:cacheprovider -k crowd_of_idle tests/e2e/test_hostile.py
