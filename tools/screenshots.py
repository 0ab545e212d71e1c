#!/usr/bin/env python3
"""Takes the pictures of docs/web.md: serves the test model under load, opens its page in Chromium, writes docs/web/*.png.

    tools/screenshots.py [MINUTES]      make screenshots: after so many minutes of load (3), for the pictures of history

Environment: BUILD (build), VRAMD_TEST_MODEL. A picture of more than 150 KB is an error: pages of the docs should stay light."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/web"), str(ROOT / "tests/e2e")]

from browser import Browser, why_not  # noqa: E402
from harness import Daemon  # noqa: E402
from load import Load  # noqa: E402

OUT = ROOT / "docs/web"
MOST_BYTES = 160 * 1024
OPTIONS = ["--max-model-len", "8192", "--max-num-seqs", "32"]
STREAMS = 14
DESK, PHONE = (1280, 800), (390, 800)
QUESTION = "What is the capital of France, and what is it known for?"


def picture(b, name):
    path = OUT / f"{name}.png"
    time.sleep(1.2)  # what moves has come to rest
    b.screenshot(path)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size:,} bytes")
    return size <= MOST_BYTES


def ask(b):
    b.view("playground")
    b.wait(lambda: b.js("return document.querySelector('#play-model').value"))
    b.fill("#play-max_tokens", "60")
    b.fill("#play-temperature", "0.7")
    b.fill("#play-seed", "7")
    b.fill("#draft", QUESTION)
    b.find("#draft").send_keys("\ue007")
    b.wait(lambda: b.all(".turn .receipt:not([hidden])"), 300)
    b.js("document.activeElement.blur(); scrollTo(0, 0)")


def prepare(b, url):
    """What needs the server to itself: an answer, and a plan."""
    b.size(*DESK)
    b.dark(False)
    b.open(url)
    b.live()
    b.view("planner")
    b.wait(lambda: b.all(".verdict"))
    ask(b)


def pictures(b):
    good = True
    for view in ("memory", "throughput", "planner", "playground"):
        b.view(view)
        for scheme in ("light", "dark"):
            b.dark(scheme == "dark")
            good &= picture(b, f"{view}-{scheme}")
        b.dark(False)
    b.size(*PHONE, scale=1.5)
    for view in ("memory", "playground"):
        b.view(view)
        b.js("scrollTo(0, 0)")
        good &= picture(b, f"{view}-phone")
    if subprocess.run(["fc-list", ":lang=zh-cn"], capture_output=True, text=True).stdout:
        b.size(*DESK)
        b.view("memory")
        b.click("#language")
        good &= picture(b, "memory-zh")
    else:
        print("memory-zh: left as it is; no font here has Chinese (apt install fonts-wqy-microhei)")
    return good


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 3
    if reason := why_not():
        sys.exit(f"screenshots: {reason}")
    OUT.mkdir(parents=True, exist_ok=True)
    d = Daemon(*OPTIONS)
    b = Browser()
    try:
        prepare(b, d.url)
        with Load(d.url, STREAMS, tokens=500, longest=2400):
            time.sleep(minutes * 60)
            good = pictures(b)
    finally:
        b.close()
        d.stop()
    if not good:
        sys.exit(f"screenshots: a picture has more than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
