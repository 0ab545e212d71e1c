#!/usr/bin/env bash
# Requests that schemathesis makes of /openapi.json, 2,000 and more, to a server with a tiny random model: none may be
# answered with 5xx, or otherwise than the document says. The package has a virtual environment of its own in the cache.
#   schemathesis.sh [EXAMPLES OF EACH OPERATION, default 60]
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build}
cache=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}
venv=$cache/venv-schemathesis
[ -x "$venv/bin/schemathesis" ] || { python3 -m venv "$venv"; "$venv/bin/pip" install -q --disable-pip-version-check schemathesis==4.32.5; }
dir=$(mktemp -d)
pid=
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null || true; fi; rm -rf "$dir"' EXIT
PYTHONPATH=tests/e2e "$(tools/venv.sh)" tests/e2e/tiny_model.py "$dir/tiny.gguf" F16
"$build/vramd" serve --model "$dir/tiny.gguf" --port 0 --embeddings auto --ollama-api --max-model-len 128 --log-requests=false \
  2> "$dir/log" & pid=$!
for _ in $(seq 200); do grep -q READY "$dir/log" && break; sleep 0.1; done
url=$(grep -o 'http://127.0.0.1:[0-9]*' "$dir/log" | head -1)
[ -n "$url" ] || { cat "$dir/log" >&2; exit 1; }
cd "$dir" # where it leaves what it remembers
"$venv/bin/schemathesis" run "$url/openapi.json" --seed 1 --max-examples "${1:-60}" --phases examples,coverage,fuzzing --workers 2 \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method,allow_header_conformance \
  --exclude-path /v1/rerank --suppress-health-check all --warnings off --no-color --generation-database none || { tail -5 "$dir/log" >&2; exit 1; }
kill -0 "$pid" # it still runs
