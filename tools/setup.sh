#!/usr/bin/env bash
# Installs what vramd is built from and tested with, from Debian's packages. Does nothing where
# all of it is there. Needs root (or sudo) otherwise.
set -eu
packages="gcc make pkg-config libc6-dev libmicrohttpd-dev libgnutls28-dev libuv1-dev libjansson-dev libpcre2-dev libinih-dev libcurl4-gnutls-dev check python3 python3-venv binutils"
[ "${1:-}" = --tests ] && packages="$packages g++ clang libclang-rt-14-dev clang-format clang-tidy curl systemd openssl build-essential debhelper lintian"
missing=
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing > /dev/null
