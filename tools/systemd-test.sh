#!/usr/bin/env bash
# Boots systemd in a Debian chroot, in namespaces and cgroups of its own, and does there with the package what
# docs/operations.md tells: the service enabled, with its dynamic user, filters and limits; keys by a group; reload;
# a crash; a budget that MemoryMax= does not hold; the sockets; Prometheus with our alerts. As root, with the
# network for apt, and cgroups of version 1 (systemd, memory).
#   tools/systemd-test.sh CHROOT DEB      a CHROOT that is not there is made by debootstrap
# Removes its cgroups and purges the package at the end. VRAMD_TEST_MODEL names the model (tools/get-model.sh otherwise).
set -eu
[ $# = 2 ] || { echo "usage: tools/systemd-test.sh CHROOT DEB" >&2; exit 2; }
[ -d "$1" ] || debootstrap --variant=minbase bookworm "$1" > /dev/null
root=$(realpath "$1") deb=$(realpath "$2")
cd "$(dirname "$0")/.."
model=${VRAMD_TEST_MODEL:-$(tools/get-model.sh)}
groups=(/sys/fs/cgroup/systemd /sys/fs/cgroup/memory)
for g in "${groups[@]}"; do
  [ -f "$g/cgroup.procs" ] || { echo "systemd-test: no $g: cgroups of version 1 are needed" >&2; exit 1; }
done
in_root() { unshare --mount --pid --fork sh -euc 'mount -t proc proc "$0/proc"; exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"' "$root" "$@"; }
say() { printf '== %s (%ds)\n' "$1" $SECONDS; }
tmp=$(mktemp -d) name=vramd-test-$$ boot=''
finish() {
  if [ "$boot" ]; then kill -KILL "$boot" 2> /dev/null || true; wait "$boot" 2> /dev/null || true; fi
  for g in "${groups[@]}"; do
    for _ in $(seq 50); do # until the last process of it is gone
      [ ! -d "$g/$name" ] || find "$g/$name" -depth -type d -exec rmdir {} + 2> /dev/null || { sleep 0.1; continue; }
      break
    done
  done
  in_root apt-get purge -y -qq vramd > /dev/null 2>&1 || true
  rm -rf "$tmp" "$root/root/vramd-test" "$root/srv/models" "$root/etc/systemd/system/vramd.s"*.d
}
trap finish EXIT

say "packages: systemd, Prometheus, vramd"
cp /etc/resolv.conf "$root/etc/resolv.conf"
in_root apt-get update -qq
in_root apt-get install -y -qq --no-install-recommends systemd systemd-sysv dbus curl prometheus > "$tmp/apt.log" 2>&1 || { cat "$tmp/apt.log"; exit 1; }
mkdir -p "$root/root/vramd-test" "$root/srv/models"
cp "$deb" "$root/root/vramd-test/vramd.deb"
cp "$model" "$root/srv/models/model.gguf"
chmod 644 "$root/srv/models/model.gguf"
in_root apt-get install -y -qq --no-install-recommends --reinstall /root/vramd-test/vramd.deb > "$tmp/apt.log" 2>&1 || { cat "$tmp/apt.log"; exit 1; }

say "systemd boots"
cat > "$tmp/boot.sh" << 'EOF'
set -eu
root=$1
shift
for g in "$@"; do mkdir "$g"; echo $$ > "$g/cgroup.procs"; done
# A user namespace (PrivateUsers=) is not to be had in a chroot: the root is changed for good.
exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc --net sh -euc '
  ip link set lo up
  mount --bind "$0" "$0"
  cd "$0"
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  mount -t tmpfs tmpfs run
  mount -t tmpfs tmpfs tmp
  mount -t tmpfs -o mode=755 tmpfs dev
  for d in null zero full random urandom tty; do touch dev/$d; mount --bind /dev/$d dev/$d; done
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  mount -t tmpfs tmpfs dev/shm
  mount -t tmpfs tmpfs sys/fs/cgroup
  mkdir sys/fs/cgroup/systemd sys/fs/cgroup/memory
  mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
  mount -t cgroup -o memory cgroup sys/fs/cgroup/memory
  hostname vramd-test
  pivot_root . mnt
  umount -l /mnt
  exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd' "$root"
EOF
bash "$tmp/boot.sh" "$root" "${groups[@]/%//$name}" > "$tmp/boot.log" 2>&1 &
boot=$!
first() { cat "/proc/$boot/task/$boot/children" 2> /dev/null | tr -d ' '; } # process 1 in there
box() { nsenter -t "$(first)" -m -u -i -n -p -C -r -w env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
for _ in $(seq 300); do
  [ "$(box systemctl is-system-running 2> /dev/null || true)" != running ] || break
  kill -0 $boot 2> /dev/null || { cat "$tmp/boot.log"; exit 1; }
  sleep 0.1
done
box systemctl is-system-running

cp tools/systemd-test-inside.sh "$root/root/vramd-test/inside.sh"
cp docs/replicas.md "$root/root/vramd-test/"
box bash /root/vramd-test/inside.sh || { box journalctl -b -n 60 --no-pager -u vramd -u vramd.socket -u prometheus; exit 1; }
say "done"
