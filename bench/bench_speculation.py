#!/usr/bin/env python3
"""Tokens per second with speculative = lookup and without, on the real model: two servers, one with the option, get the
same requests in turn; the ratio is the median of the rounds'. Kinds: edit, a file of this repository's Python is
written again with a name changed; quote, prose of a prompt is repeated; chat, questions of no common subject at
temperature 1, which give little to quote; chat_greedy, the same at temperature 0. Answers of both servers are compared:
they must be equal. after_first: the ratio of the tokens per second of a request behind its first one, since both servers compute
prompts in the same time; accepted: guesses that were right, of those that were verified; per_step: tokens of a sequence's step.

--draft: with draft_model and without. The model is the real one with its numbers in float32, the draft model the real one as it is,
which reads a fifth of the bytes: bench/results/speculation-draft-CPU.json, where `lookup` is the server with the draft model."""

import argparse
import random
import re
import urllib.request

from bench_common import *

OUTPUT = 192
STREAMS = (1, 8, 32)
SUBJECTS = ("a river", "tax", "bread", "the moon", "chess", "a lighthouse", "bees", "glass", "sleep", "a violin", "snow", "maps", "rust",
            "coffee", "a desert", "trains", "salt", "the heart", "wool", "volcanoes", "clocks", "rice", "bridges", "owls")
ASKED = ("Explain {} to a child.", "Write a short story about {}.", "What are three surprising facts about {}?",
         "Compare {} and {}.", "Why do people care about {}?", "Give me advice about {}.")


def lines_of(path, r, n):
    lines = [x for x in Path(path).read_text().splitlines() if x.strip()]
    at = r.randrange(max(1, len(lines) - n))
    return lines[at:at + n]


def edit(r):
    code = "\n".join(lines_of(r.choice(sorted(ROOT.glob("bench/*.py"))), r, 40))
    names = [n for n in re.findall(r"\b[a-z_]{3,}\b", code) if code.count(n) > 2]
    name = r.choice(names) if names else "self"
    first = code.splitlines()[0].replace(name, name + "_new")
    return {"prompt": f"The file:\n```python\n{code}\n```\n\nThe same file, in which `{name}` is renamed to `{name}_new`:\n```python\n{first}\n",
            "temperature": 0}


def quote(r):
    text = "\n".join(lines_of(text_of("hamlet"), r, 30))
    return {"prompt": f"A passage:\n\n{text}\n\nThe same passage once more, word by word:\n\n{text.splitlines()[0]}\n", "temperature": 0}


def chat(r, temperature=1):
    asked = r.choice(ASKED).format(*r.sample(SUBJECTS, 2))
    return {"prompt": f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n", "temperature": temperature,
            "seed": r.randrange(1 << 30)}


KINDS = {"edit": edit, "quote": quote, "chat": chat, "chat_greedy": lambda r: chat(r, 0)}


def bodies(kind, n, seed):
    r = random.Random(f"{kind} {seed}")
    return [{**KINDS[kind](r), "max_tokens": OUTPUT, "ignore_eos": True, "stream": True,
             "stream_options": {"include_usage": True}} for _ in range(n)]


def counters(server):
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics").read().decode()
    return {k: float(re.search(rf"^vramd_{k}_total(?:\{{[^}}]*\}})? (\S+)", text, re.M)[1]) for k in
            ("speculative_drafts", "speculative_draft_tokens", "speculative_accepted_tokens", "generated_tokens")}


def measure(server, streams, sent):
    before = counters(server)
    got = run_load(server.port, streams, sent)
    after = counters(server)
    good = [g for g in got if g["ok"] and g["tokens"] == OUTPUT]
    wall = max(g["start_us"] + g["total_us"] for g in got) / 1e6
    return {"tokens_per_s": sum(g["tokens"] for g in good) / wall,
            "after_first": sum(g["tokens"] - 1 for g in good) / sum(g["total_us"] - g["ttft_us"] for g in good), "failed": len(got) - len(good),
            **{k: after[k] - before[k] for k in after}}


def same_answers(servers, kind):
    """How many of some requests have the same text from both."""
    texts = []
    for s in servers:
        texts.append([])
        for b in bodies(kind, 4, "same"):
            b = {k: v for k, v in b.items() if not k.startswith("stream")}
            q = urllib.request.Request(f"http://127.0.0.1:{s.port}/v1/completions", json.dumps(b).encode(),
                                       {"Content-Type": "application/json"})
            texts[-1].append(json.load(urllib.request.urlopen(q))["choices"][0]["text"])
    return sum(a == b for a, b in zip(*texts)), len(texts[0])


def row_of(kind, streams, runs):
    off, on = runs
    drafted = sum(r["speculative_draft_tokens"] for r in on)
    accepted = sum(r["speculative_accepted_tokens"] for r in on)
    generated = sum(r["generated_tokens"] for r in on)
    return {"case": kind, "streams": streams, "off": round(median([r["tokens_per_s"] for r in off]), 1),
            "lookup": round(median([r["tokens_per_s"] for r in on]), 1),
            "ratio": round(median([b["tokens_per_s"] / a["tokens_per_s"] for a, b in zip(off, on)]), 3),
            "after_first": round(median([b["after_first"] / a["after_first"] for a, b in zip(off, on)]), 3),
            "accepted": round(accepted / drafted, 3) if drafted else None,
            "guesses_per_token": round(drafted / generated, 3), "per_step": round(generated / (generated - accepted), 2),
            "failed": sum(r["failed"] for v in runs for r in v)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--tokens", type=int, default=15, help="speculative_tokens")
    p.add_argument("--streams", type=int, nargs="*", default=STREAMS)
    p.add_argument("--kinds", nargs="*", default=KINDS)
    p.add_argument("--dry", action="store_true", help="no file of results")
    p.add_argument("--draft", action="store_true", help="a draft model in place of lookup")
    o = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(o, *servers_of(o, folder))
    if not o.dry:
        save("speculation-draft" if o.draft else "speculation", rows, rounds=o.rounds, speculative_tokens=o.tokens, output_tokens=OUTPUT)


def servers_of(o, folder):
    """Without guesses, and with them."""
    options = ["--max-num-seqs", 32, "--max-model-len", 2048, "--kv-cache-tokens", 65536, "--no-prefix-caching"]
    guesses, model = ["--speculative", "lookup"], None
    if o.draft:
        guesses, model = ["--draft-model", model_path()], Path(folder) / "f32.gguf"
        vramd("quantize", model_path(), model, "--type", "F32", "--requantize")
    return vramd_server(*options, model=model), vramd_server(*options, *guesses, "--speculative-tokens", o.tokens, model=model)


def compare(o, *servers):
    rows = []
    try:
        for kind in o.kinds:
            equal, n = same_answers(servers, kind)
            if equal < n:
                sys.exit(f"{kind}: {n - equal} of {n} answers differ")
            for streams in o.streams:
                runs = [], []
                for i in range(o.rounds + 1):
                    sent = bodies(kind, max(4, 2 * streams), f"{streams} {i}")
                    for k in (0, 1) if i % 2 else (1, 0):
                        r = measure(servers[k], streams, sent)
                        if i > 0:  # the first round warms up
                            runs[k].append(r)
                rows.append(row_of(kind, streams, runs))
                print(rows[-1], flush=True)
        return rows
    finally:
        for s in servers:
            s.stop()


if __name__ == "__main__":
    main()
