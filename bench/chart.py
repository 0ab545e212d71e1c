#!/usr/bin/env python3
"""Draws the README's charts from bench/results and prints the README's table of GPU figures.

    bench/chart.py        writes docs/chart-cpu.svg and docs/chart-gpu.svg, prints the table"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
CPU, GPU = RESULTS / "http-amd-epyc-f26m2.json", RESULTS / "cuda-second-h200.txt"
COLOURS = {"vramd": "#1f5fa8", "llama.cpp": "#d9730d", "PyTorch": "#7a7a7a"}
WIDTH, PANEL, LEFT, TOP, BASE, TALL = 820, 400, 46, 62, 268, 190  # pixels


def panel(x0, title, groups, names, values):
    """Bars in groups; values: {(name, group): number}; a missing one leaves a gap."""
    top = max(values.values())
    out = [f'<text x="{x0 + LEFT}" y="44" class="t">{title}</text>',
           f'<line x1="{x0 + LEFT}" y1="{BASE}" x2="{x0 + PANEL - 10}" y2="{BASE}" stroke="#444"/>']
    wide = (PANEL - LEFT - 20) / len(groups)
    bar = min(34, (wide - 8) / len(names))
    for i, group in enumerate(groups):
        for k, name in enumerate(names):
            v = values.get((name, group))
            if v is None:
                continue
            x, h = x0 + LEFT + 6 + i * wide + k * bar, v / top * TALL
            out.append(f'<rect x="{x:.1f}" y="{BASE - h:.1f}" width="{bar - 2:.1f}" height="{h:.1f}" fill="{COLOURS[name]}"/>')
            out.append(f'<text x="{x + bar / 2 - 1:.1f}" y="{BASE - h - 4:.1f}" text-anchor="middle" class="v">{v:,.0f}</text>')
        out.append(f'<text x="{x0 + LEFT + 6 + i * wide + len(names) * bar / 2:.1f}" y="{BASE + 16}" text-anchor="middle">{group}</text>')
    return out


def svg(file, heading, note, panels):
    body = [f'<text x="{LEFT}" y="20" class="h">{heading}</text>', f'<text x="{LEFT}" y="{BASE + 42}" class="v">{note}</text>']
    for i, (title, groups, names, values) in enumerate(panels):
        body += panel(i * PANEL, title, groups, names, values)
    x = LEFT
    for name in dict.fromkeys(n for p in panels for n in p[2]):
        body.append(f'<rect x="{x}" y="{BASE + 54}" width="12" height="12" fill="{COLOURS[name]}"/><text x="{x + 17}" y="{BASE + 64}">{name}</text>')
        x += 110
    style = "text{font:12px sans-serif;fill:#222}.h{font-size:15px;font-weight:bold}.t{font-weight:bold}.v{font-size:10.5px}"
    height = BASE + 80
    file.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"><style>{style}</style>'
                    f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n")


def cpu():
    doc = json.loads(CPU.read_text())
    rows = [r for r in doc["rows"] if r["server"] in COLOURS and "ttft_ms" in r and "tokens_per_s" in r]
    streams = sorted({r["streams"] for r in rows})
    both = ["vramd", "llama.cpp"]
    svg(ROOT / "docs" / "chart-cpu.svg", "Serving on 2 cores of an AMD EPYC (AVX-512), SmolLM2 135M, Q4_1",
        f"Prompts of {doc['prompt_tokens']} tokens, answers of {doc['output_tokens']}, over HTTP; medians of {doc['rounds']} rounds. "
        "llama.cpp's own server, same file, same threads.",
        [("tokens per second, by requests in flight", streams, both, {(r["server"], r["streams"]): r["tokens_per_s"] for r in rows}),
         ("time to the first token in ms, by requests in flight", streams, both, {(r["server"], r["streams"]): r["ttft_ms"] for r in rows})])


def gpu():
    """{type: {(engine, batch): tokens/s}} of decoding at a context of 1,024 tokens, and the prefill of 4,096."""
    text = GPU.read_text() + (RESULTS / GPU.name.replace("second", "first")).read_text()
    decode, prefill = {"q4_0": {}, "bf16": {}}, {}
    for t, batch, rate in re.findall(r"^decode +(q4_0|bf16) +batch +(\d+) context +1024 .*? ([\d.]+) tokens/s", text, re.M):
        decode[t].setdefault(("vramd", int(batch)), float(rate))
    for t, rate in re.findall(r"^prefill +(q4_0|bf16) +batch +1 context +4096 .*? ([\d.]+) tokens/s", text, re.M):
        prefill.setdefault(("vramd", t), float(rate))
    for batch, rate in re.findall(r"^torch +bf16 +batch +(\d+) context +1024 .*? ([\d.]+) tokens/s", text, re.M):
        decode["bf16"][("PyTorch", int(batch))] = float(rate)
    for batch, rate in re.findall(r"^\| +1024 \| +32 \| +(\d+) \|(?:[^|]*\|){4} +([\d.]+) \|", text, re.M):
        decode["q4_0"][("llama.cpp", int(batch))] = float(rate)
    if m := re.search(r"tg64 @ d1024 \| +([\d.]+)", text):  # llama-bench at batch 1: the better of the two counts
        decode["q4_0"][("llama.cpp", 1)] = max(float(m[1]), decode["q4_0"].get(("llama.cpp", 1), 0))
    if m := re.search(r"pp4096 \| +([\d.]+)", text):
        prefill[("llama.cpp", "q4_0")] = float(m[1])
    return decode, prefill


def main():
    cpu()
    decode, prefill = gpu()
    batches = [1, 16, 64]
    pick = {t: {k: v for k, v in d.items() if k[1] in batches} for t, d in decode.items()}
    svg(ROOT / "docs" / "chart-gpu.svg", "Decoding on one NVIDIA H200, the shape of Llama 3 8B",
        "Tokens per second of the engine alone, context 1,024, random weights. llama.cpp: llama-bench and llama-batched-bench.",
        [("Q4_0, by batch", batches, ["vramd", "llama.cpp"], pick["q4_0"]), ("BF16, by batch", batches, ["vramd", "PyTorch"], pick["bf16"])])
    print("| tokens/s on an H200 | batch 1 | 16 | 64 | prefill of 4,096 |\n|---|---|---|---|---|")
    for engine, t in (("vramd", "q4_0"), ("llama.cpp", "q4_0"), ("vramd", "bf16"), ("PyTorch", "bf16")):
        cells = [decode[t].get((engine, b)) for b in batches] + [prefill.get((engine, t))]
        print(f"| {engine}, {t.upper()} | " + " | ".join(f"{v:,.0f}" if v else "" for v in cells) + " |")


if __name__ == "__main__":
    main()
