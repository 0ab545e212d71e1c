#!/usr/bin/env bash
# Prints the folder with prometheus and promtool: the installed ones, else those of Debian's package,
# unpacked in the cache (it is not installed: that would start a service).
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
  fetch() { (cd "$tmp" && apt-get download -qq prometheus > /dev/null 2>&1); }
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  fetch || { $sudo apt-get update -qq >&2; fetch; } || { echo "get-prometheus: apt-get finds no package prometheus" >&2; exit 1; }
  mkdir -p "$dir"
  dpkg-deb --fsys-tarfile "$tmp"/prometheus_*.deb | tar -x -C "$dir" ./usr/bin/prometheus ./usr/bin/promtool
fi
echo "$dir/usr/bin"
