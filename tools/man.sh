#!/usr/bin/env bash
# Writes the manual pages under a folder, as the program itself tells them: vramd(8), vramd.conf(5), and a page
# vramd-COMMAND(1) of each command with a --help of its own.
#   tools/man.sh VRAMD DIR
set -eu -o pipefail
vramd=$1 man=$2
mkdir -p "$man/man1" "$man/man5" "$man/man8"
"$vramd" serve --print-man > "$man/man8/vramd.8"
"$vramd" serve --print-man-conf > "$man/man5/vramd.conf.5"
date=$(sed -n 's/^\.Dd //p' "$man/man8/vramd.8")
literal() { # as it stands, with what roff would read masked
  printf '.Bd -literal\n'
  sed -E 's/\\/\\e/g; s/-/\\-/g; s/^([.'\''])/\\\&\1/'
  printf '.Ed\n'
}
page() { # name, what it does
  local help usage='^(usage:|       vramd)'
  help=$("$vramd" "$1" --help)
  printf '.Dd %s\n.Dt VRAMD-%s 1\n.Os\n.Sh NAME\n.Nm vramd-%s\n.Nd %s\n.Sh SYNOPSIS\n' "$date" "${1^^}" "$1" "$2"
  grep -E "$usage" <<< "$help" | sed -E 's/^(usage:|      ) //' | literal
  printf '.Sh DESCRIPTION\n'
  grep -vE "$usage" <<< "$help" | sed '/./,$!d' | literal
  printf '.Sh EXIT STATUS\nAs in\n.Xr vramd 8 .\n.Sh SEE ALSO\n.Xr vramd 8 ,\n.Xr vramd.conf 5\n'
}
"$vramd" --help | sed -nE 's/^  ([a-z]+) +(.*)/\1 \2/p' | while read -r name what; do
  case $name in
    serve | version) ln -sf vramd.8 "$man/man8/vramd-$name.8" ;; # all of them is on that page
    *) page "$name" "$what" > "$man/man1/vramd-$name.1" ;;
  esac
done
