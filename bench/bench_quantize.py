#!/usr/bin/env python3
"""vramd quantize against llama-quantize --pure, alternating, from float32 numbers in the page cache to a file on /dev/shm: seconds,
CPU seconds and whether the files are equal. The input is an export of the test model.

    VRAMD_PEER_LLAMA=$(bench/build_peer.sh) make bench B=quantize
    bench/bench_quantize.py --types Q4_0,Q8_0 --threads 1 --rounds 3"""

import argparse
import filecmp
import os
import tempfile

from bench_common import *

TYPES = "Q4_0,Q4_1,Q5_0,Q5_1,Q8_0,IQ4_NL,Q4_K,Q6_K,Q3_K"
EQUAL = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}


def timed(cmd):
    """Wall and CPU seconds, peak of resident memory in MiB."""
    t0 = time.monotonic()
    p = subprocess.Popen([str(c) for c in cmd], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, code, use = os.wait4(p.pid, 0)
    p.returncode = code
    if code:
        raise SystemExit(f"failed: {cmd}")
    return time.monotonic() - t0, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--types", default=TYPES)
    ap.add_argument("--threads", type=int, nargs="*", default=[1, os.cpu_count()])
    ap.add_argument("--rounds", type=int, default=5)
    a = ap.parse_args()
    peer = peer_bin() and Path(peer_bin()) / "llama-quantize"
    rows = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as d:
        source, ours, theirs = (Path(d) / n for n in ("f32.gguf", "ours.gguf", "theirs.gguf"))
        timed([BUILD / "vramd", "quantize", model_path(), source, "--type", "F32"])
        for t in a.types.split(","):
            for n in a.threads:
                runs = {"vramd": [], "llama-quantize": []}
                for _ in range(a.rounds):
                    ours.unlink(missing_ok=True)
                    runs["vramd"].append(timed([BUILD / "vramd", "quantize", source, ours, "--type", t, "--pure", "--threads", n]))
                    if peer:
                        runs["llama-quantize"].append(timed([peer, "--pure", source, theirs, {"Q4_K": "Q4_K_S", "Q3_K": "Q3_K_S"}.get(t, t), n]))
                row = {"type": t, "threads": n, "bytes": ours.stat().st_size}
                for who, v in runs.items():
                    if v:
                        row[who] = {"seconds": round(median([x[0] for x in v]), 3), "cpu_seconds": round(median([x[1] for x in v]), 3),
                                    "peak_mib": round(max(x[2] for x in v))}
                if peer:
                    row["seconds_ratio"] = round(median([x[0] / y[0] for x, y in zip(*runs.values())]), 3)
                    row["cpu_ratio"] = round(median([x[1] / y[1] for x, y in zip(*runs.values())]), 3)
                    row["equal"] = filecmp.cmp(ours, theirs, shallow=False)
                    if t in EQUAL and not row["equal"]:
                        raise SystemExit(f"{t}: the files differ")
                print(row, flush=True)
                rows.append(row)
    save("quantize", rows)


if __name__ == "__main__":
    main()
