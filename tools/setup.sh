#!/usr/bin/env bash
# Installs the Debian packages (12, 13) that vramd is built with, and with --tests those that it is
# tested with. Does nothing where all of them are installed; otherwise needs root or sudo.
set -eu
packages="gcc make pkg-config libc6-dev libmicrohttpd-dev libgnutls28-dev libuv1-dev libjansson-dev libpcre2-dev libutf8proc-dev libinih-dev libcurl4-gnutls-dev check python3 python3-venv binutils curl ca-certificates"
[ "${1:-}" = --tests ] && packages="$packages g++ clang libclang-rt-dev clang-tidy pandoc systemd openssl build-essential debhelper lintian chromium chromium-driver libopenmpi-dev openmpi-bin"
missing=
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
log=$(mktemp)
trap 'rm -f "$log"' EXIT
say() { echo "setup: $1"; }
say "installing $(wc -w <<< "$missing") Debian packages:$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # one word a package
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 $missing > "$log" 2>&1 ||
  { cat "$log" >&2; say "apt-get has failed" >&2; exit 1; }
say "done"
