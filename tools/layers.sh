#!/usr/bin/env bash
# The layers: which modules there are, lowest first, and which others each may include. They are stated
# here alone: the Makefile takes them from --make, and docs/architecture.md is compared with them.
#   tools/layers.sh           fails where a module includes a header of a module that it may not include, where
#                             a library is used outside the files that own it, or where the document differs
#   tools/layers.sh --table   prints "MODULE: MODULES IT MAY INCLUDE", itself first
#   tools/layers.sh --exception prints the one include that may point upward: FILE HEADER
#   tools/layers.sh --make    prints MODULES and below_MODULE (all that is linked with it) as words for make,
#                             "+" for a blank
set -eu
cd "$(dirname "$0")/.."
table='base:
conf: base
memory: base
json: base
model: json memory base
text: model json memory base
quant: model json memory base
scheduler: memory base
engine: model memory base
sim: scheduler memory base
api: text model json memory base
load: json base
daemon: load api sim engine scheduler text quant model json memory conf base'
exception='api/port.h scheduler/stats.h' # a list, plain data
declare -A below
modules=()
while IFS=: read -r m rest; do modules+=("$m"); below[$m]="$m$rest"; done <<< "$table"

closure() { # what a program made of module $1 is linked with: all that those below it may include, too
  local all=" " m
  add() { for m in ${below[$1]}; do [[ $all == *" $m "* ]] || { all+="$m "; add "$m"; }; done; }
  add "$1"; all=${all# }; all=${all% }
  echo "below_$1:=${all// /+}"
}
case ${1:-} in
  --table) for m in "${modules[@]}"; do echo "$m: ${below[$m]}"; done; exit ;;
  --exception) echo "$exception"; exit ;;
  --make) list=${modules[*]}; echo "MODULES:=${list// /+}"
    for m in "${modules[@]}"; do closure "$m"; done; exit ;;
esac

bad=0
any=$(IFS='|'; echo "${modules[*]}")
for m in "${modules[@]}"; do
  while IFS=: read -r file line include; do
    target=${include#*\"}; target=${target%%/*}
    [[ "$file $include" != "${exception% *} #include \"${exception#* }\""* ]] || continue
    case " ${below[$m]} " in *" $target "*) ;; *)
      echo "layers: $file:$line: $m/ may not include $target/ (may: ${below[$m]})"; bad=1 ;;
    esac
  done < <(grep -rnE --include='*.[ch]' --include='*.cu' --include='*.cuh' --include='*.cpp' "^#include \"($any)/" "$m" || true)
done
# A library's header -> files that may include it
owner() { # pattern, allowed path regex
  while IFS=: read -r file line _; do
    [[ $file =~ $2 ]] || { echo "layers: $file:$line: $1 belongs in $2"; bad=1; }
  done < <(grep -rnE --include='*.[ch]' "^#include <$1" "${modules[@]}" || true)
}
owner 'microhttpd.h>' '^api/http'
owner 'gnutls/' '^api/(keys|http)'
owner 'jansson.h>' '^json/'
owner 'uv.h>' '^(daemon/|api/http|api/server)'
owner 'curl/curl.h>' '^load/curl'
owner 'pcre2.h>' '^text/(tokenizer/|jinja/strip_lines)'
owner 'ini.h>' '^conf/'
owner 'cuda' '^engine/cuda/'
owner 'mpi.h>' '^engine/mpi/plugin.c$'
# The table in docs/architecture.md: | `api/` | holds | model, memory, base |
words() { tr -s ', ' '\n\n' <<< "$1" | sed '/^$/d' | sort | tr '\n' ' '; }
for m in "${modules[@]}"; do
  row=$(sed -nE "s#^\| \`$m/\` \|.*\| ([^|]*) \|\$#\1#p" docs/architecture.md)
  [ "$row" != libc ] || row=
  [ "$(words "$m $row")" = "$(words "${below[$m]}")" ] ||
    { echo "layers: docs/architecture.md: $m/ may include \"$row\"; here it is \"${below[$m]#"$m"}\""; bad=1; }
done
exit $bad
