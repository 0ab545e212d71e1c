#!/usr/bin/env python3
"""From exec to the first byte of text of `vramd generate`, with the file in the page cache, and
from exec to READY of `vramd serve`."""

import argparse

from bench_common import *


def first_byte():
    t0 = time.monotonic()
    p = subprocess.Popen([BUILD / "vramd", "generate", "--model", model_path(), "--max-tokens", "1",
                          "Once upon a time"], stdout=subprocess.PIPE)
    p.stdout.read(1)
    t = time.monotonic() - t0
    p.stdout.read()
    if p.wait() != 0:
        raise SystemExit("vramd generate failed")
    return t


def ready():
    s = vramd_server()
    s.stop()
    return s.ready_s


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=7)
    a = ap.parse_args()
    Path(model_path()).read_bytes()
    rows = [{"what": what, "seconds_median": round(median(v), 3), "seconds": [round(x, 3) for x in v]}
            for what, v in (("generate: exec to first byte", [first_byte() for _ in range(a.rounds)]),
                            ("serve: exec to READY", [ready() for _ in range(a.rounds)]))]
    for r in rows:
        print(r)
    save("startup", rows)


if __name__ == "__main__":
    main()
