#!/usr/bin/env bash
# What tools/systemd-test.sh does in the booted system, whose systemd, network and files are all its own.
set -eu
cd /root/vramd-test
conf=/etc/vramd/vramd.conf drop_in=/etc/systemd/system/vramd.service.d/override.conf
say() { printf '== %s (%ds)\n' "$1" $SECONDS; }
log() { journalctl -u vramd -o cat --no-pager; }
set_option() { sed -i "s|^#\?$1 =.*|$1 = $2|" $conf; grep -q "^$1 = " $conf; }
override() { # lines of [Service]
  mkdir -p "$(dirname $drop_in)"
  { echo '[Service]'; printf '%s\n' SupplementaryGroups=vramd-keys "$@"; } > $drop_in
  systemctl daemon-reload
  systemctl reset-failed
}
url=http://127.0.0.1:8000
ask() { # key, more words of curl: the status
  local key=$1; shift
  curl -s -o answer -w '%{http_code}' "$@" "$url/v1/completions" -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
    -d '{"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}'
}
new_key() { vramd key "$1" 2>&1 >> /etc/vramd/keys | sed 's/.* //'; }

say "nothing runs before a model is named, and the installation says so"
DEBIAN_FRONTEND=noninteractive dpkg -i vramd.deb 2>&1 | grep 'vramd.service is a disabled'
[ "$(systemctl is-enabled vramd)" = disabled ]
[ "$(systemctl is-active vramd)" = inactive ]

say "a model, a budget, keys by a group: enabled and started"
set_option model /srv/models/model.gguf
set_option max_model_len 4096
set_option max_num_seqs 8
set_option memory 600MiB
set_option api_keys_file /etc/vramd/keys
grep -q '^vramd-keys:' /etc/group || groupadd --system vramd-keys
rm -f /etc/vramd/keys
alice=$(new_key alice)
chgrp vramd-keys /etc/vramd/keys
chmod 640 /etc/vramd/keys
vramd serve --check > /dev/null
override
systemctl enable --now vramd # returns when it is ready
[ "$(ask "$alice")" = 200 ]
grep -q Paris answer
[ "$(ask no-key)" = 401 ]
systemctl status vramd --no-pager | grep -E 'Status|Memory'

say "it runs as nobody in particular, without capabilities, filtered"
pid=$(systemctl show -p MainPID --value vramd)
grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' "/proc/$pid/status"
grep -qE '^Uid:\s6[0-9]{4}\s' "/proc/$pid/status"
grep -qE '^CapEff:\s0+$' "/proc/$pid/status"
grep -qE '^Seccomp:\s2$' "/proc/$pid/status"

say "reload: a new key counts, a wrong file changes nothing"
bob=$(new_key bob)
systemctl reload vramd
for _ in $(seq 50); do [ "$(ask "$bob")" != 200 ] || break; sleep 0.1; done
[ "$(ask "$bob")" = 200 ]
echo 'nonsense = 1' >> $conf
systemctl reload vramd
sed -i '$d' $conf
for _ in $(seq 50); do ! log | grep -q 'nothing is taken over.*nonsense' || break; sleep 0.1; done
log | grep 'nothing is taken over.*nonsense'
[ "$(ask "$bob")" = 200 ]

say "installed again while it serves: restarted, its configuration kept"
DEBIAN_FRONTEND=noninteractive dpkg -i vramd.deb > /dev/null
grep -q '^model = /srv/models/model.gguf' $conf
[ "$(systemctl is-active vramd)" = active ]
[ "$(systemctl show -p MainPID --value vramd)" != "$pid" ]
[ "$(ask "$bob")" = 200 ]

say "killed: started again"
systemctl kill -s KILL vramd
for _ in $(seq 300); do [ "$(ask "$alice" 2> /dev/null || true)" != 200 ] || break; sleep 0.1; done
[ "$(ask "$alice")" = 200 ]
systemctl show vramd -p NRestarts | grep -x NRestarts=1

say "MemoryMax= and the budget: 2% above it serves, less is refused by name"
override MemoryMax=610M
if systemctl restart vramd 2> /dev/null; then exit 1; fi
log | grep 'memory = 600MiB is 600.0 MiB, but the cgroup, less 2% for the kernel, has 598.0 MiB'
systemctl stop vramd
override MemoryMax=612M
systemctl restart vramd
echo "$alice" > key
vramd bench --url $url --api-key-file key --concurrency 8 --requests 16 --prompt-tokens 200 --output-tokens 32 | grep '16 ok, 0 failed'
[ "$(systemctl is-active vramd)" = active ]

say "Prometheus scrapes it, with our alerts"
cp /usr/share/doc/vramd/alerts.yml /etc/prometheus/vramd-alerts.yml
cat > /etc/prometheus/prometheus.yml << 'EOF'
rule_files:
  - /etc/prometheus/vramd-alerts.yml
scrape_configs:
  - job_name: vramd
    scrape_interval: 1s
    static_configs:
      - targets: ["127.0.0.1:8000"]
EOF
promtool check config /etc/prometheus/prometheus.yml | grep SUCCESS
systemctl restart prometheus
for _ in $(seq 300); do
  curl -s 'http://127.0.0.1:9090/api/v1/query?query=vramd_ready' > answer || true
  ! grep -q '"1"\]' answer || break
  sleep 0.1
done
grep -q '"1"\]' answer
systemctl stop prometheus

say "started by the first connection, by TCP and by a Unix socket"
systemctl disable --now vramd 2> /dev/null
systemctl enable --now vramd.socket 2> /dev/null
[ "$(systemctl is-active vramd)" = inactive ]
curl -s $url/ready > /dev/null
for _ in $(seq 300); do [ "$(ask "$alice")" != 200 ] || break; sleep 0.1; done
[ "$(ask "$alice")" = 200 ]

say "a successor takes the socket over: docs/replicas.md, under requests"
requests() { # until there is a file; prints what is not 200
  local n=0
  until [ -f enough ]; do
    local status
    status=$(ask "$alice" --max-time 60 -H "Connection: close" || true)
    n=$((n + 1))
    [ "$status" = 200 ] || echo "$status"
  done
  echo "$n requests"
}
rm -f enough
(cd "$(mktemp -d)" && ln -s /root/vramd-test/enough enough && requests) > statuses &
sender=$!
old=$(systemctl show -p MainPID --value vramd)
grep -A 3 'systemctl cat vramd' replicas.md | sed 's/^ *# //; s/   .*//' > takeover.sh
[ "$(wc -l < takeover.sh)" = 4 ]
bash -eux takeover.sh
[ "$(systemctl show -p MainPID --value vramd)" != "$old" ]
[ "$(systemctl is-active vramd-next)" = active ]
[ "$(ask "$alice")" = 200 ]
systemctl stop vramd-next
[ "$(ask "$alice")" = 200 ]
touch enough
wait $sender
cat statuses
grep -qx '[1-9][0-9]* requests' statuses
[ "$(wc -l < statuses)" = 1 ]

systemctl stop vramd.socket vramd
mkdir -p /etc/systemd/system/vramd.socket.d
printf '[Socket]\nListenStream=\nListenStream=/run/vramd.sock\nSocketUser=root\nSocketGroup=www-data\nSocketMode=0660\n' \
  > /etc/systemd/system/vramd.socket.d/override.conf
systemctl daemon-reload
systemctl start vramd.socket
[ "$(stat -c '%U %G %a' /run/vramd.sock)" = "root www-data 660" ]
for _ in $(seq 300); do [ "$(ask "$alice" --unix-socket /run/vramd.sock)" != 200 ] || break; sleep 0.1; done
[ "$(ask "$alice" --unix-socket /run/vramd.sock)" = 200 ]
systemctl stop vramd.socket vramd
[ "$(systemctl show vramd -p Result --value)" = success ]
