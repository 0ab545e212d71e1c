"""What the benchmark scripts share: the machine, servers, the load generator, result files.
Standard library only."""

import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = Path(os.environ.get("BUILD", ROOT / "build")).resolve()
THREADS = int(os.environ.get("THREADS", os.cpu_count()))


def model_path():
    return os.environ.get("VRAMD_TEST_MODEL") or subprocess.check_output(
        [ROOT / "tools" / "get-model.sh"], text=True).strip()


def peer_bin():
    """llama.cpp's build/bin, or None."""
    folder = os.environ.get("VRAMD_PEER_LLAMA")
    return Path(folder).resolve() if folder and Path(folder, "llama-bench").exists() else None


def cpu_field(name):
    for line in open("/proc/cpuinfo"):
        if line.split(":")[0].strip() == name:
            return line.split(":", 1)[1].strip()
    return ""


def cpu_slug():
    """amd-epyc-f25m17, intel-xeon-...-f6m143: names the result file."""
    name = re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", cpu_field("model name"), flags=re.I)
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or platform.machine()
    return f"{name}-f{cpu_field('cpu family')}m{cpu_field('model')}"


def machine():
    flags = cpu_field("flags").split()
    return {
        "cpu": cpu_field("model name"), "family": cpu_field("cpu family"), "model": cpu_field("model"),
        "cores": os.cpu_count(), "cache": cpu_field("cache size"),
        "flags": [f for f in flags if f.startswith(("avx", "amx", "fma", "f16c", "sse4"))],
        "kernel": platform.release(),
    }


def output_of(*cmd):
    try:
        return subprocess.check_output(cmd, text=True, cwd=ROOT, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def save(name, rows, **more):
    """Writes bench/results/NAME-CPU.json and returns its path."""
    path = ROOT / "bench" / "results" / f"{name}-{cpu_slug()}.json"
    path.parent.mkdir(exist_ok=True)
    doc = {
        "bench": name, "date": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
        "commit": output_of("git", "rev-parse", "--short", "HEAD"),
        "machine": machine(), "load_average": os.getloadavg()[0], "threads": THREADS,
        "model_file": Path(model_path()).name, **more, "rows": rows,
    }
    text = json.dumps(doc, indent=1, ensure_ascii=False)
    # one row a line
    text = re.sub(r"\n  +(?=[^ ])", " ", text[text.index('"rows"'):]).join([text[:text.index('"rows"')], ""])
    text = text.replace("}, {", "},\n  {").replace('"rows": [ {', '"rows": [\n  {')
    json.loads(text)
    path.write_text(text + "\n")
    print(f"wrote {path.relative_to(ROOT)}")
    return path


def median(v):
    v = [x for x in v if x is not None]
    return statistics.median(v) if v else None


def percentile(v, p):
    v = sorted(v)
    return v[min(len(v) - 1, int(p / 100 * len(v)))] if v else None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server process on a free port, waited for until `ready` answers 200."""

    def __init__(self, name, command, ready):
        self.name, self.port = name, free_port()
        self.command = [str(c).replace("PORT", str(self.port)) for c in command]
        self.log = tempfile.NamedTemporaryFile("w+", prefix=f"{name}-", suffix=".log")
        t0 = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        while not self.answers(ready):
            if self.process.poll() is not None or time.monotonic() - t0 > 120:
                self.stop()
                raise RuntimeError(f"{name} did not become ready:\n{Path(self.log.name).read_text()[-3000:]}")
            time.sleep(0.002)
        self.ready_s = time.monotonic() - t0
        self.memory_at_ready = self.memory()

    def answers(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as r:
                return r.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def memory(self):
        """MB by the operating system: resident, and of that anonymous."""
        want = {"Rss": None, "Anonymous": None}
        for line in open(f"/proc/{self.process.pid}/smaps_rollup"):
            key = line.split(":")[0]
            if key in want:
                want[key] = round(int(line.split()[1]) * 1024 / 1e6, 2)
        return {"rss_mb": want["Rss"], "anonymous_mb": want["Anonymous"]}

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def vramd(*words):
    """What a subcommand prints; the end of the program where it fails."""
    r = subprocess.run([BUILD / "vramd", *map(str, words)], stdout=subprocess.PIPE, text=True)
    if r.returncode:
        sys.exit(f"vramd {words[0]} ended with {r.returncode}")
    return r.stdout


def text_of(which):
    """A text of tools/get-text.sh: hamlet, plays."""
    return Path(subprocess.check_output([ROOT / "tools" / "get-text.sh", which], text=True).strip())


def vramd_server(*options, build=BUILD, model=None):
    return Server("vramd", [Path(build) / "vramd", "serve", "--model", model or model_path(), "--host", "127.0.0.1",
                            "--port", "PORT", "--threads", THREADS, "--no-log-requests", *options], "/ready")


def peer_server(*options):
    return Server("llama.cpp", [peer_bin() / "llama-server", "-m", model_path(), "--host", "127.0.0.1",
                                "--port", "PORT", "-t", THREADS, *options], "/health")


def build_load():
    subprocess.run(["make", "-s", f"BUILD={BUILD}", BUILD / "load"], cwd=ROOT, check=True)
    return BUILD / "load"


def run_load(port, streams, bodies):
    """Sends the bodies over so many streams; one dict a request, as bench/load.c prints them."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps(b, separators=(",", ":")) + "\n" for b in bodies)
        f.flush()
        p = subprocess.run([build_load(), str(port), str(streams), f.name], text=True, stdout=subprocess.PIPE)
    return [json.loads(line) for line in p.stdout.splitlines()]
