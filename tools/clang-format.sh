#!/usr/bin/env bash
# Prints the path of clang-format 14, the version that decides how the code looks (others differ in
# places): the installed one, else the one in the project's Python environment (tools/venv.sh).
set -eu
for c in clang-format-14 clang-format; do
  [[ $("$c" --version 2> /dev/null || true) != *" version 14."* ]] || { command -v "$c"; exit; }
done
echo "$(dirname "$("$(dirname "$0")/venv.sh")")/clang-format"
