#!/usr/bin/env bash
# Runs the two commands of the README, tools/quickstart.sh and tools/test.sh, on a fresh Debian: a minimal chroot made
# by debootstrap, with git and nothing else, and in it a clone of the committed tree. As root; needs the network.
#   tools/fresh-test.sh SUITE [DIR]      SUITE: bookworm, trixie; DIR: the chroot (build/fresh-SUITE), removed and made anew
# Packages and logs stay in DIR.cache. Mounts live in a namespace of their own: nothing to clean up.
set -euo pipefail
suite=${1:?usage: tools/fresh-test.sh SUITE [DIR]}
cd "$(dirname "$0")/.."
root=$(realpath -m "${2:-build/fresh-$suite}")
[ -n "${VRAMD_IN_NAMESPACE:-}" ] || exec env VRAMD_IN_NAMESPACE=1 unshare --mount --pid --fork --kill-child tools/fresh-test.sh "$suite" "$root"
unset VRAMD_IN_NAMESPACE # tools/chroot-test.sh has the same
cache=$root.cache
say() { printf '== %s (%d s)\n' "$1" $SECONDS; }
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
mkdir -p "$root/root/.cache/pip" "$root/root/vramd"
mount --bind "$cache/pip" "$root/root/.cache/pip"
git bundle create -q "$root/tmp/vramd.bundle" HEAD
mapfile -t pip < <(env | grep -E '^PIP_[A-Z_]*=' | grep -v FIND_LINKS || true) # this machine's settings for pip
in_clone() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "${pip[@]}" chroot "$root" sh -c 'cd /root/vramd && exec "$@"' sh "$@"; }
in_clone git -c init.defaultBranch=main -c advice.detachedHead=false clone -q /tmp/vramd.bundle .

say "tools/quickstart.sh"
in_clone tools/quickstart.sh 2>&1 | tee "$cache/quickstart.log"
grep -q '^It works' "$cache/quickstart.log" || die "tools/quickstart.sh did not come to its end"
say "tools/test.sh; its output goes to $cache/test.log"
in_clone tools/test.sh > "$cache/test.log" 2>&1 || { tail -n 100 "$cache/test.log"; die "tools/test.sh has failed"; }
sed -n '/^skipped:/,$p' "$cache/test.log"
say "done"
