#!/usr/bin/env bash
# Prints the folder with prometheus and promtool: the installed ones, else those of Debian's packages,
# unpacked in the cache (they are not installed: that would start a service). Since Debian 13 promtool is a package of its own.
set -eu
if command -v promtool > /dev/null && command -v prometheus > /dev/null; then
  dirname "$(command -v promtool)"
  exit 0
fi
dir=${VRAMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vramd}/prometheus
if [ ! -x "$dir/usr/bin/promtool" ]; then
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  chmod 755 "$tmp"
  fetch() {
    local packages=prometheus
    apt-cache show promtool > /dev/null 2>&1 && packages="prometheus promtool"
    # shellcheck disable=SC2086 # one word a package
    (cd "$tmp" && apt-get download -qq $packages > /dev/null 2>&1)
  }
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  fetch || { $sudo apt-get update -qq >&2; fetch; } || { echo "get-prometheus: apt-get finds no package prometheus" >&2; exit 1; }
  for deb in "$tmp"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tmp" --wildcards './usr/bin/prom*'
  done
  mkdir -p "$dir/usr/bin"
  mv "$tmp/usr/bin/prometheus" "$tmp/usr/bin/promtool" "$dir/usr/bin"
fi
echo "$dir/usr/bin"
