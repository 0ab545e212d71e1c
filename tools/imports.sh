#!/usr/bin/env bash
# The graph of imports of the base binary, from its sources and its objects (build first):
#   tools/imports.sh [--cycles] [BUILD]
# Prints the modules and what each includes, the number of arrows, arrows that point upward, and the cycles
# among the files of a module. A file points to each header that it includes, and to the file that defines a
# function or datum that its object takes; a header points to the file whose functions its inline functions
# call. With --cycles prints upward arrows and cycles alone, and fails where there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
only=
[ "${1:-}" = --cycles ] && { only=1; shift; }
BUILD=${1:-build}
read -ra modules <<< "$(tools/layers.sh --table | cut -d: -f1 | tr '\n' ' ')"
sources() { find "${modules[@]}" -name '*.[ch]' | sort; }
{
  tools/layers.sh --table | sed 's/^/layer /; s/://'
  echo "exception $(tools/layers.sh --exception)"
  grep -nE '^#include "' $(sources) /dev/null | sed -E 's/^([^:]+):[0-9]+:#include "([^"]+)".*/include \1 \2/'
  for f in $(find "${modules[@]}" -name '*.c' ! -path engine/mpi/plugin.c); do # not of the base binary
    o=$BUILD/obj/${f%.c}.o
    [ -e "$o" ] || { echo "imports: no $o: build first" >&2; exit 1; }
    echo "$o"
  done | xargs -r nm -A -P | sed "s#^$BUILD/obj/#symbol #; s#\.o: #.c #"
  # What stands indented in headers, outside comments: the bodies of inline functions.
  grep -E '^[[:space:]]+[^*[:space:]]' $(sources | grep '\.h$') /dev/null |
    sed -E 's#^([^:]+):#inline \1 #; s#/\*.*\*/##; s#/\*.*##' | sort -u
} | awk -v only="$only" '
function module(f) { sub(/\/.*/, "", f); return f }
$1 == "layer" { n_layers++; name[n_layers] = $2; is[$2] = 1; for (i = 2; i <= NF; i++) may[$2, $i] = 1 }
$1 == "exception" { excepted[$2, $3] = 1 }
$1 == "include" {
  if (($2, $3) in excepted) next
  a = module($2); b = module($3)
  if (!(b in is)) next # a header of the tests or of a tool
  if (a != b && !((a, b) in arrow)) { arrow[a, b] = 1; n_arrows++; out[a] = out[a] " " b; if (!((a, b) in may)) up = up "upward: " a " -> " b " (" $2 " includes " $3 ")\n" }
  if (a == b) edge($2, $3)
}
$1 == "symbol" && $4 ~ /^[TDBRVW]$/ { where[$3] = $2 }
$1 == "symbol" && $4 == "U" { use($2, $3) }
$1 == "inline" {
  file = $2
  for (text = $0; match(text, /[a-z_][a-z0-9_]*\(/); text = substr(text, RSTART + RLENGTH)) use(file, substr(text, RSTART, RLENGTH - 1))
}
function use(by, what) { n_uses++; user[n_uses] = by; used[n_uses] = what }
function edge(a, b) {
  if (a == b || (a, b) in seen) return
  seen[a, b] = 1; node[a] = node[b] = 1; to[a] = to[a] " " b
}
# The strongly connected components, by Tarjan: each of two files or more is printed.
function visit(v,    i, n, w, list) {
  at[v] = low[v] = ++clock; stack[++depth] = v; on[v] = 1
  n = split(to[v], list, " ")
  for (i = 1; i <= n; i++) {
    w = list[i]
    if (!(w in at)) { visit(w); if (low[w] < low[v]) low[v] = low[w] }
    else if (on[w] && at[w] < low[v]) low[v] = at[w]
  }
  if (low[v] != at[v]) return
  w = ""; n = 0
  do { last = stack[depth--]; on[last] = 0; w = last " " w; n++ } while (last != v)
  if (n > 1) { cycles = cycles "cycle: " w "\n"; n_cycles++ }
}
END {
  for (i = 1; i <= n_uses; i++)
    if (used[i] in where && module(user[i]) == module(where[used[i]])) edge(user[i], where[used[i]])
  for (v in node) order[++n_nodes] = v
  for (i = 1; i <= n_nodes; i++) if (!(order[i] in at)) visit(order[i])
  if (!only) {
    for (i = 1; i <= n_layers; i++) printf "%s:%s\n", name[i], out[name[i]]
    printf "%d modules, %d arrows, %d cycles among files\n", n_layers, n_arrows, n_cycles
  }
  printf "%s%s", up, cycles
  if (only && (up != "" || cycles != "")) exit 1
}'
