#!/usr/bin/env bash
# shellcheck disable=SC2016 # ${...} is for dpkg-query
# Installs the package in a Debian chroot with apt and does there what docs/operations.md tells a newcomer: manual
# pages, completion, a model in vramd.conf, the plan, keys, TLS, requests, vramd bench; then removes and
# purges it, and compares the files before and after. As root; needs the network for apt.
#   tools/chroot-test.sh CHROOT DEB      a CHROOT that is not there is made by debootstrap
# Mounts live in a namespace of their own, and the server has a network of its own: nothing to
# clean up. VRAMD_TEST_MODEL names the model (tools/get-model.sh otherwise).
set -eu
[ $# = 2 ] || { echo "usage: tools/chroot-test.sh CHROOT DEB" >&2; exit 2; }
[ -d "$1" ] || debootstrap --variant=minbase bookworm "$1" > /dev/null
root=$(realpath "$1")
deb=$(realpath "$2")
cd "$(dirname "$0")/.."
if [ -z "${VRAMD_IN_NAMESPACE:-}" ]; then
  export VRAMD_TEST_MODEL=${VRAMD_TEST_MODEL:-$(tools/get-model.sh)}
  exec env VRAMD_IN_NAMESPACE=1 unshare --mount --pid --fork --kill-child "$0" "$root" "$deb"
fi
mount -t proc proc "$root/proc"
in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C "$@"; }
say() { printf '== %s (%ds)\n' "$1" $SECONDS; }
die() { echo "chroot-test: $1" >&2; exit 1; }
# All but what apt, dpkg, ldconfig and debconf keep for themselves, and groupdel's copies (/etc/group-).
files() {
  (cd "$root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./tmp -o -path ./run \
    -o -path ./var/cache -o -path ./var/log -o -path ./var/lib/apt -o -path ./var/lib/dpkg -o -path ./etc/ld.so.cache -o -path './etc/*-' \) -prune -o -print | sort)
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp" "$root"/tmp/vramd-test' EXIT

say "packages that the test itself uses"
cp /etc/resolv.conf "$root/etc/resolv.conf"
in_root apt-get update -qq
in_root apt-get install -y -qq --no-install-recommends curl openssl man-db bash-completion > "$tmp/apt.log" 2>&1 || { cat "$tmp/apt.log"; die "apt"; }
if in_root dpkg -s vramd > /dev/null 2>&1; then in_root apt-get purge -y -qq vramd > /dev/null; fi # of a run that failed
if grep -q '^vramd-keys:' "$root/etc/group"; then in_root groupdel vramd-keys; fi
files > "$tmp/before"
in_root dpkg-query -W -f '${Package}\n' | sort > "$tmp/packages"

say "apt install ./vramd.deb"
mkdir -p "$root/tmp/vramd-test"
cp "$deb" "$root/tmp/vramd-test/vramd.deb"
cp "$VRAMD_TEST_MODEL" "$root/tmp/vramd-test/model.gguf"
in_root apt-get install -y -qq --no-install-recommends /tmp/vramd-test/vramd.deb > "$tmp/apt.log" 2>&1 || { cat "$tmp/apt.log"; die "apt install"; }
in_root vramd version
for f in /etc/vramd/vramd.conf /lib/systemd/system/vramd.service /lib/systemd/system/vramd.socket \
  /usr/share/bash-completion/completions/vramd; do
  [ -s "$root$f" ] || die "$f is missing or empty"
done
in_root dpkg-query -W -f '${Conffiles}\n' vramd | grep -q /etc/vramd/vramd.conf || die "vramd.conf is no conffile"
in_root dpkg --verify vramd
[ ! -e "$root/etc/systemd/system/multi-user.target.wants/vramd.service" ] || die "enabled before a model is named"

say "a model is named, the plan is checked"
sed -i 's|^#model =.*|model = /tmp/vramd-test/model.gguf|; s|^#max_num_seqs =.*|max_num_seqs = 4|' "$root/etc/vramd/vramd.conf"
in_root vramd serve --check | grep -E '^(model|max_num_seqs|# fits)'
in_root vramd plan | sed -n '/^total/,/^smallest/p'

say "installed again over it: the configuration stays as it is"
in_root apt-get install -y -qq --reinstall /tmp/vramd-test/vramd.deb > "$tmp/apt.log" 2>&1 || { cat "$tmp/apt.log"; die "apt install --reinstall"; }
grep -q '^model = ' "$root/etc/vramd/vramd.conf" || die "the configuration was replaced"

say "a manual page for every command, and completion of commands and options"
cat > "$root/tmp/vramd-test/shell.sh" << 'EOF'
set -eu
for page in vramd vramd.conf $(vramd --help | sed -nE 's/^  ([a-z]+) .*/vramd-\1/p'); do
  man "$page" > /tmp/vramd-test/page 2> /tmp/vramd-test/warnings
  [ ! -s /tmp/vramd-test/warnings ] || { cat /tmp/vramd-test/warnings; exit 1; }
  grep -q "^${page^^}(" /tmp/vramd-test/page || grep -q '^VRAMD(8)' /tmp/vramd-test/page
done
man vramd bench | grep -q -e '--concurrency'
set +eu # of others' code
source /usr/share/bash-completion/bash_completion
_completion_loader vramd
set -eu
tab() { # words: what the last one may become
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
  _vramd vramd || true # its status is of no interest to bash
  echo " ${COMPREPLY[*]} "
}
complete -p vramd
[[ $(tab vramd "") == *" serve "*" bench "* ]]
[[ $(tab vramd ke) == " key " ]]
[[ $(tab vramd serve --tls-) == " --tls-cert --tls-key " ]]
[[ $(tab vramd bench --po) == " --poisson " ]]
[[ $(tab vramd serve --log-level d) == " debug " ]]
EOF
in_root bash /tmp/vramd-test/shell.sh || die "manual pages or completion"

say "keys and a certificate"
in_root groupadd --system vramd-keys
group=$(sed -n 's/^vramd-keys:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")
in_root sh -euc 'cd /etc/vramd
  vramd key alice rate=600/min > keys 2> /tmp/vramd-test/said
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout tls.key -out tls.pem 2> /dev/null
  chgrp vramd-keys keys tls.key; chmod 640 keys tls.key
  sed "s/.* //" /tmp/vramd-test/said > /tmp/vramd-test/key; chmod 644 /tmp/vramd-test/key'
sed -i 's|^#api_keys_file =.*|api_keys_file = /etc/vramd/keys|' "$root/etc/vramd/vramd.conf"
in_root vramd serve --check > /dev/null

say "serve, as the unit's command, as nobody of the group of keys: plain, then TLS"
command=$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/vramd.service")
cat > "$root/tmp/vramd-test/serve.sh" << 'EOF'
set -eu
cd /tmp/vramd-test
url=$1; shift
key="Authorization: Bearer $(cat key)"
"$@" 2> log &
server=$!
get() { path=$1; shift; curl -sS --cacert /etc/vramd/tls.pem "$@" "$url$path"; }
complete() {
  get /v1/completions -H 'Content-Type: application/json' "$@" \
    -d '{"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}'
}
for _ in $(seq 600); do
  get /ready -f > /dev/null 2>&1 && break
  kill -0 $server || { cat log; exit 1; }
  sleep 0.1
done
[ "$(complete -o /dev/null -w '%{http_code}')" = 401 ]
complete -f -H "$key" | tee answer
echo
grep -q Paris answer
if [ "${url#https}" = "$url" ]; then
  vramd bench --url "$url" --api-key-file key --concurrency 2 --requests 6 --output-tokens 8 --quiet --json bench.json
  grep -q '"requests"' bench.json
  vramd bench --url "$url" --requests 1 --quiet > /dev/null 2> refused && exit 1
  cat refused
fi
get /metrics -f | grep -E '^vramd_(ready|generated_tokens_total)'
kill -TERM $server
wait $server
EOF
chmod 777 "$root/tmp/vramd-test"
serve() { # url, options
  local url=$1; shift
  # shellcheck disable=SC2086 # the command's words
  unshare --net sh -c 'ip link set lo up; exec "$@"' sh chroot --userspec=65534:65534 --groups="$group" "$root" \
    env -i PATH=/usr/bin:/bin sh /tmp/vramd-test/serve.sh "$url" $command "$@" || { cat "$root/tmp/vramd-test/log"; die "$url"; }
}
serve http://127.0.0.1:8000
serve https://localhost:8443 --port 8443 --tls-cert /etc/vramd/tls.pem --tls-key /etc/vramd/tls.key

say "remove: the configuration stays"
in_root apt-get remove -y -qq vramd > "$tmp/apt.log" 2>&1 || { cat "$tmp/apt.log"; die "apt remove"; }
[ ! -e "$root/usr/bin/vramd" ] || die "the program is still there"
grep -q '^model = ' "$root/etc/vramd/vramd.conf" || die "the configuration is gone"

say "purge: nothing stays"
in_root apt-get purge -y -qq vramd > "$tmp/apt.log" 2>&1 || { cat "$tmp/apt.log"; die "apt purge"; }
in_root groupdel vramd-keys
in_root dpkg-query -W -f '${Package}\n' | sort | comm -13 "$tmp/packages" - > "$tmp/pulled"
# shellcheck disable=SC2046 # names of packages
in_root apt-get purge -y -qq $(cat "$tmp/pulled") > "$tmp/apt.log" 2>&1 || { cat "$tmp/apt.log"; die "apt purge"; }
files > "$tmp/after"
diff "$tmp/before" "$tmp/after" || die "files are left or missing after the purge"
say "done: $(wc -l < "$tmp/before") files before and after, the same"
