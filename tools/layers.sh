#!/usr/bin/env bash
# Fails when a room includes a header of a room that is not below it (docs/architecture.md), or
# opens a library's door outside the files that own it.
set -eu
cd "$(dirname "$0")/.."
declare -A below=(
  [base]="base" [conf]="base conf" [memory]="base memory" [model]="base memory model"
  [scheduler]="base memory scheduler" [engine]="base memory model engine"
  [sim]="base memory scheduler sim" [api]="base memory model api"
  [load]="base memory model api load"
  [daemon]="base conf memory model scheduler engine sim api load daemon")
bad=0
for room in "${!below[@]}"; do
  while IFS=: read -r file line include; do
    target=${include#*\"}; target=${target%%/*}
    [[ $file != api/port.h || $include != *'"scheduler/stats.h"'* ]] || continue # a list, plain data
    case " ${below[$room]} " in *" $target "*) ;; *)
      echo "layers: $file:$line: $room/ may not include $target/ (may: ${below[$room]})"; bad=1 ;;
    esac
  done < <(grep -rnE --include='*.[ch]' '^#include "(base|conf|memory|model|scheduler|engine|sim|api|load|daemon)/' "$room" 2>/dev/null || true)
done
# library header -> files that may include it
door() { # pattern, allowed path regex
  while IFS=: read -r file line _; do
    [[ $file =~ $2 ]] || { echo "layers: $file:$line: $1 belongs in $2"; bad=1; }
  done < <(grep -rnE --include='*.[ch]' "^#include <$1" base conf memory model scheduler engine sim api load daemon || true)
}
door 'microhttpd.h>' '^api/http'
door 'gnutls/' '^api/(keys|http)'
door 'jansson.h>' '^api/'
door 'uv.h>' '^(daemon/|api/http|api/server)'
door 'curl/curl.h>' '^load/curl'
door 'pcre2.h>' '^model/tokenizer'
door 'ini.h>' '^conf/'
door 'cuda' '^engine/cuda/'
exit $bad
