#!/usr/bin/env python3
"""Runs the very steps of docker/Dockerfile where there is no Docker: in chroots, as root.

    docker/run_steps.py BASE [MODEL]    BASE: debootstrap --variant=minbase bookworm BASE

Each FROM is a copy of BASE (build stage and runtime alike), each RUN a shell in it, each COPY a
copy (.dockerignore counts). Then the image's own command serves MODEL under its USER, with its ENV
and a network of its own, its HEALTHCHECK is asked until it passes, a completion is read, and SIGTERM comes
in the middle of a stream, which must end as it would have. Every library must be there, and no build tool.
What it does not know in the Dockerfile is an error, so that the two cannot drift apart.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def instructions(text):
    """[(word, rest)], with continued lines joined and comments left out."""
    joined = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not line.strip():
            continue
        joined += line.rstrip().removesuffix("\\")
        if not line.rstrip().endswith("\\"):
            word, rest = joined.split(None, 1)
            yield word.upper(), rest.strip()
            joined = ""


class Stage:
    def __init__(self, root, base):
        self.root, self.dir, self.env, self.user = root, "/", {}, "0:0"
        self.entrypoint, self.command, self.health, self.ports = [], [], None, []
        subprocess.run(["cp", "-a", "--reflink=auto", f"{base}/.", root], check=True)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")

    def path(self, name):
        return self.root / os.path.join(self.dir, name).lstrip("/")

    def argv(self, argv, user="0:0", network=True):
        """What runs argv in this stage, behind NAMESPACE."""
        env = [f"{k}={v}" for k, v in {"PATH": PATH, **self.env}.items()]
        inside = ["chroot", f"--userspec={user}", self.root, "env", "-i", "-C", self.dir, *env, *argv]
        mount = 'mount -t proc proc "$0/proc"; ' + ("" if network else "ip link set lo up; ") + 'exec "$@"'
        return [*NAMESPACE, *([] if network else ["--net"]), "sh", "-euc", mount, self.root, *inside]

    def copy(self, rest, stages):
        words = shlex.split(rest)
        source = TOP
        while words[0].startswith("--"):
            if not words[0].startswith("--from="):
                raise SystemExit(f"run_steps: COPY {words[0]} is not known")
            source = stages[words.pop(0).removeprefix("--from=")].root
        *names, to = words
        for name in names:
            origin, target = source / name.lstrip("/"), self.path(to)
            if to.endswith("/"):
                target /= Path(name).name
            if origin.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                skip = [f"--exclude=./{p}" if "**/" not in p else f"--exclude={p.removeprefix('**/')}"
                        for p in (TOP / ".dockerignore").read_text().split()] if source == TOP else []
                subprocess.run(f"tar -C {origin} {shlex.join(skip)} -cf - . | tar -C {target} -xf - --no-same-owner", shell=True, check=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, target)


def build(text, base, work):
    """The last stage, after all its steps and those of the stages before."""
    stages, now = {}, None
    for word, rest in instructions(text):
        print(f"== {word} {rest}", flush=True)
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            if image not in ("debian:bookworm", "debian:bookworm-slim"):
                raise SystemExit(f"run_steps: {image} is not what BASE stands for")
            root = work / (name or "image")
            root.mkdir()
            now = stages[name or "image"] = Stage(root, base)
        elif word == "RUN":
            subprocess.run(now.argv(["sh", "-c", rest], now.user), check=True, stdout=subprocess.DEVNULL)
        elif word == "COPY":
            now.copy(rest, stages)
        elif word == "WORKDIR":
            now.dir = os.path.join(now.dir, rest)
            now.path(".").mkdir(parents=True, exist_ok=True)
        elif word == "ENV":
            now.env |= dict(w.split("=", 1) for w in shlex.split(rest))
        elif word == "USER":
            now.user = rest
        elif word == "VOLUME":
            now.path(rest).mkdir(parents=True, exist_ok=True)
        elif word == "EXPOSE":
            now.ports += rest.split()
        elif word == "HEALTHCHECK":
            now.health = json.loads(rest.split(" CMD ", 1)[1])
        elif word in ("ENTRYPOINT", "CMD"):
            setattr(now, "entrypoint" if word == "ENTRYPOINT" else "command", json.loads(rest))
        else:
            raise SystemExit(f"run_steps: {word} is not known")
    return now


# Server, health check and client share a network: one shell in the image runs all three.
SERVE = r"""
set -eu
ldd "$(command -v {program})" > /tmp/ldd
cat /tmp/ldd
if grep -q 'not found' /tmp/ldd || dpkg-query -W -f '${{Package}}\n' | grep -E -e '-dev$|^(gcc|make|dpkg-dev)$'; then
  echo '== not what a runtime needs'; exit 1
fi
{command} & server=$!
sleep 0.05; {health} 2> /dev/null && echo 'healthy from the start?' || echo '== not healthy while loading'
n=0; until {health} 2> /dev/null; do n=$((n + 1)); [ $n -lt 300 ]; kill -0 $server; sleep 0.2; done
echo '== healthy'
grep -E '^(Name|Uid|CapEff)' /proc/$server/status
ask() {{
  curl -fsSN http://127.0.0.1:{port}/v1/completions -H 'Content-Type: application/json' -d "$1"
}}
ask '{{"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}}'; echo
ask '{{"prompt": "a", "max_tokens": 400, "ignore_eos": true, "stream": true}}' > /tmp/stream & client=$!
n=0; until grep -q '^data: ' /tmp/stream; do n=$((n + 1)); [ $n -lt 300 ]; sleep 0.02; done
if grep -q 'DONE' /tmp/stream; then echo '== the stream was over before SIGTERM'; exit 1; fi
kill -TERM $server; wait $client
echo "== the stream's end after SIGTERM: $(grep '^data: ' /tmp/stream | tail -n 1)"
wait $server; echo "== stopped, status $?"
"""


def serve(image, model):
    shutil.copy(model, image.root / "models/model.gguf")
    port = int(image.ports[0]) + 123  # the health check follows the environment
    image.env |= {"VRAMD_MODEL": "/models/model.gguf", "VRAMD_PORT": str(port)}
    script = SERVE.format(program=image.entrypoint[0], command=shlex.join(image.entrypoint + image.command),
                          health=shlex.join(image.health), port=port)
    p = subprocess.run(image.argv(["sh", "-c", script], image.user, network=False), text=True, stdout=subprocess.PIPE)
    print(p.stdout, end="")
    uid = image.user.split(":")[0]
    wanted = [f"Uid:\t{uid}\t", "CapEff:\t0000000000000000", "Paris", "SIGTERM: data: [DONE]", "stopped, status 0"]
    missing = [w for w in wanted if w not in p.stdout]
    if p.returncode or missing or uid == "0":
        raise SystemExit(f"run_steps: the image does not serve as it should: status {p.returncode}, missing {missing}")


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    model = sys.argv[2] if len(sys.argv) == 3 else subprocess.run(
        [TOP / "tools/get-model.sh"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="vramd-image-") as work:
        image = build((TOP / "docker/Dockerfile").read_text(), Path(sys.argv[1]).resolve(), Path(work))
        size = subprocess.run(["du", "-sxm", image.root], text=True, stdout=subprocess.PIPE).stdout.split()[0]
        print(f"== the image: {size} MiB with BASE", flush=True)
        serve(image, model)


if __name__ == "__main__":
    main()
