#!/usr/bin/env bash
# Runs the two commands of the README, tools/quickstart.sh and tools/test.sh, on a fresh Debian: a minimal chroot made
# by debootstrap, with git and nothing else, and in it a clone of the committed tree. As root; needs the network.
#   tools/fresh-test.sh SUITE [DIR]      SUITE: bookworm, trixie; DIR: the chroot (build/fresh-SUITE), removed and made anew
# Packages are kept in DIR.cache for the next run. Mounts live in a namespace of their own: nothing to clean up.
set -eu
suite=${1:?usage: tools/fresh-test.sh SUITE [DIR]}
cd "$(dirname "$0")/.."
root=$(realpath -m "${2:-build/fresh-$suite}")
[ -n "${VRAMD_IN_NAMESPACE:-}" ] || exec env VRAMD_IN_NAMESPACE=1 unshare --mount --pid --fork --kill-child "$0" "$suite" "$root"
cache=$root.cache
say() { printf '== %s (%ds)\n' "$1" $SECONDS; }
die() { echo "fresh-test: $1" >&2; exit 1; }

say "debootstrap $suite"
rm -rf --one-file-system "$root"
mkdir -p "$cache/apt" "$cache/pip"
debootstrap --variant=minbase --include=git,ca-certificates --cache-dir="$cache/apt" "$suite" "$root" > "$cache/debootstrap.log" 2>&1 ||
  { tail -n 5 "$cache/debootstrap.log"; die "debootstrap"; }
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt" # a network may have an authority of its own
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$cache/apt" "$root/var/cache/apt/archives"
mkdir -p "$root/root/.cache/pip"
mount --bind "$cache/pip" "$root/root/.cache/pip"
git bundle create "$root/tmp/vramd.bundle" HEAD 2> /dev/null
in_root() { # in the clone; pip's own settings of this machine go along
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 $(env | grep -E '^PIP_[A-Z_]*=' | tr '\n' ' ') \
    chroot "$root" sh -c 'mkdir -p /root/vramd && cd /root/vramd && exec "$@"' sh "$@"
}
in_root git clone -q /tmp/vramd.bundle .

say "tools/quickstart.sh"
in_root tools/quickstart.sh 2>&1 | tee "$cache/quickstart.log" || true
say "tools/test.sh"
in_root tools/test.sh > "$cache/test.log" 2>&1 || { tail -n 100 "$cache/test.log"; die "tools/test.sh has failed; its log is $cache/test.log"; }
tail -n 5 "$cache/test.log"
say "done"
