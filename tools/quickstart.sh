#!/usr/bin/env bash
# From a fresh clone to an answer: installs what is missing, builds, downloads a small real model (98 MB), serves it,
# sends one request, prints the memory table, and stops the server. Another model: MODEL=/path/to/file.gguf
# tools/quickstart.sh; another port: PORT=8001 tools/quickstart.sh
#   --stay: leave the server running in the foreground afterwards (Ctrl-C stops it)
set -euo pipefail
cd "$(dirname "$0")/.."
port=${PORT:-8000}
url=http://127.0.0.1:$port
say() { printf '== %s (%d s)\n' "$1" $SECONDS; }
die() { echo "quickstart: $1" >&2; exit 1; }
if (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
  die "port $port is taken: another server listens there; try: PORT=$((port + 1)) tools/quickstart.sh"
fi

say "1/4: Debian packages"
tools/setup.sh
say "2/4: building build/vramd; a dot for each file"
make -j"$(nproc)" | awk '{ printf "."; fflush() } END { print "" }'
say "3/4: the model"
model=${MODEL:-$(tools/get-model.sh)}
echo "$model"
say "4/4: serving it on $url"
log=build/quickstart.log
: > $log # or the loop below may read what an earlier run left, before the server has begun
build/vramd serve --model "$model" --port "$port" 2> $log &
server=$!
trap 'kill $server 2> /dev/null || true; wait $server 2> /dev/null || true' EXIT
until grep -q ' READY: curl ' $log; do
  kill -0 $server 2> /dev/null || { cat $log >&2; die "the server did not start"; }
  sleep 0.1
done
run() { printf '\n$ %s\n' "$1"; bash -c "$1" || die "this request failed; the server's log is $log"; }
# The log ends with a request that works: by the model's chat template, if it has one.
run "$(sed -n 's/.* READY: curl /curl -fsS /p' $log)"
echo
run "curl -fsS $url/v1/memory -H 'Accept: text/plain'"

if [ "${1:-}" = --stay ]; then
  printf '\nIt works. The server goes on until Ctrl-C; OpenAI clients use the base URL %s/v1. Its log: %s\n' "$url" $log
  wait $server
  exit
fi
kill $server
wait $server || die "the server did not stop cleanly; its log is $log"
cat << END

It works. The server is stopped again. What next:
  tools/quickstart.sh --stay                                the same, and the server stays
  build/vramd plan my-model.gguf                            what another model takes; README.md says where to get one
  build/vramd serve --model my-model.gguf --memory 6GiB     serve it within 6 GiB
  build/vramd generate --model my-model.gguf "Hello"        one answer on the terminal
END
