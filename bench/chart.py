#!/usr/bin/env python3
"""Draws the charts of README and docs from bench/results, and prints the README's table of GPU figures.

    bench/chart.py        make charts: writes docs/chart-*.svg, prints the table

Charts of a benchmark that has no stored result are left out; of several results the newest counts, and the chart names it."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCS = ROOT / "bench" / "results", ROOT / "docs"
CPU, GPU = RESULTS / "http-amd-epyc-f26m2.json", RESULTS / "cuda-second-h200.txt"
COLOURS = {"vramd": "#1f5fa8", "llama.cpp": "#d9730d", "PyTorch": "#7a7a7a"}
OTHERS = ["#1f5fa8", "#d9730d", "#7a7a7a"]  # for the names of a chart that are none of these
WIDTH, PANEL, LEFT, TOP, BASE, TALL = 820, 400, 46, 62, 268, 190  # pixels


def colours(names):
    return {n: COLOURS.get(n, OTHERS[i % len(OTHERS)]) for i, n in enumerate(names)}


def number(v):
    return f"{v:,.0f}" if v >= 10 else f"{v:.1f}" if v >= 1 else f"{v:.2g}"


def whisker(x, low, high):
    """A vertical line between two heights, with a bar at each end."""
    return f'<path d="M{x - 3:.1f} {low:.1f}h6m-3 0V{high:.1f}m-3 0h6" stroke="#222" fill="none"/>'


def panel(x0, title, groups, names, values, line=None, scatter=None):
    """Bars in groups; values: {(name, group): number}; a missing one leaves a gap. line: a value, dashed across the panel.
    scatter: {(name, group): half of a whisker's height}."""
    scatter = scatter or {}
    top = max(max(v + scatter.get(k, 0) for k, v in values.items()), line or 0)
    out = [f'<text x="{x0 + LEFT}" y="44" class="t">{title}</text>',
           f'<line x1="{x0 + LEFT}" y1="{BASE}" x2="{x0 + PANEL - 10}" y2="{BASE}" stroke="#444"/>']
    wide = (PANEL - LEFT - 20) / len(groups)
    bar = min(34, (wide - 8) / len(names))
    small = ' class="v"' if len(groups) > 4 else ""
    for i, group in enumerate(groups):
        for k, name in enumerate(names):
            v = values.get((name, group))
            if v is None:
                continue
            x, h = x0 + LEFT + 6 + i * wide + k * bar, v / top * TALL
            out.append(f'<rect x="{x:.1f}" y="{BASE - h:.1f}" width="{bar - 2:.1f}" height="{h:.1f}" fill="{colours(names)[name]}"/>')
            more = scatter.get((name, group), 0) / top * TALL
            if more:
                out.append(whisker(x + bar / 2 - 1, BASE - h + more, BASE - h - more))
            out.append(f'<text x="{x + bar / 2 - 1:.1f}" y="{BASE - h - more - 4:.1f}" text-anchor="middle" class="v">{number(v)}</text>')
        out.append(f'<text x="{x0 + LEFT + 6 + i * wide + len(names) * bar / 2:.1f}" y="{BASE + 16}" text-anchor="middle"{small}>{group}</text>')
    if line:
        y = BASE - line / top * TALL
        out.append(f'<line x1="{x0 + LEFT}" y1="{y:.1f}" x2="{x0 + PANEL - 10}" y2="{y:.1f}" stroke="#222" stroke-dasharray="4 3"/>')
    return out


def svg(file, heading, note, panels):
    body = [f'<text x="{LEFT}" y="20" class="h">{heading}</text>', f'<text x="{LEFT}" y="{BASE + 42}" class="v">{note}</text>']
    for i, p in enumerate(panels):
        body += panel(i * PANEL, *p)
    x, names = LEFT, list(dict.fromkeys(n for p in panels for n in p[2]))
    for name, colour in colours(names).items():
        body.append(f'<rect x="{x}" y="{BASE + 54}" width="12" height="12" fill="{colour}"/><text x="{x + 17}" y="{BASE + 64}">{name}</text>')
        x += max(110, 30 + 7 * len(name))
    style = "text{font:12px sans-serif;fill:#222}.h{font-size:15px;font-weight:bold}.t{font-weight:bold}.v{font-size:10.5px}"
    height = BASE + 80
    file.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"><style>{style}</style>'
                    f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n")


def cpu():
    doc = json.loads(CPU.read_text())
    rows = [r for r in doc["rows"] if r["server"] in COLOURS and "ttft_ms" in r and "tokens_per_s" in r]
    streams = sorted({r["streams"] for r in rows})
    both = ["vramd", "llama.cpp"]
    svg(DOCS / "chart-cpu.svg", "Serving on 2 cores of an AMD EPYC (AVX-512), SmolLM2 135M, Q4_1",
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


def source(path, doc):
    m = doc["machine"]
    return f"{m['cores']} cores of {m['cpu']} (family {m['family']}, model {m['model']}), {doc['model_file']}; bench/results/{path.name}"


def fair(path, file):
    """What a flood of one tenant costs another one, by policy."""
    doc = json.loads(path.read_text())
    rows = {f"scheduler_policy = {r['policy']}": r for r in doc["rows"]}
    of = lambda figure: ([""], list(rows), {(n, ""): r[figure] for n, r in rows.items()})
    svg(file, f"{doc['flood']:,} requests of one tenant at once, and those of another one", source(path, doc),
        [("longest time to the other's first token, in times of one request", *of("first_token_services_max")),
         ("tokens per second during the flood", *of("tokens_per_s"))])


def slo(path, file):
    """The time between two tokens with an objective and without."""
    doc = json.loads(path.read_text())
    label = lambda v: re.sub(r"none, (\d+) rows", r"\1 tokens a step", v)
    rows = {label(r["variant"]): r for r in doc["rows"]}
    of = lambda part, scale, *at: ([f"p{p}" for p in at], list(rows), {(n, f"p{p}"): r[f"{part}_ms_p{p}"] / scale for n, r in rows.items() for p in at})
    objective = max(int(m[1]) for v in rows if (m := re.search(r"itl_slo_ms = (\d+)", v)))
    speeds = ", ".join(f"{r['output_tokens_per_s']:.1f}" for r in rows.values())
    svg(file, f"{doc['streams']} streams of {doc['prompt_tokens']} prompt and {doc['output_tokens']} output tokens: {speeds} tokens/s", source(path, doc),
        [(f"ms between two tokens; dashed: the objective, {objective}", *of("itl", 1, 50, 90, 99), objective),
         ("time to the first token in s", *of("ttft", 1e3, 50, 99))])


def simulate(path, file):
    """The same arrivals, live and simulated; whiskers are the standard deviation of a live run."""
    doc = json.loads(path.read_text())

    def of(figure):
        values, scatter = {}, {}
        for r in doc["rows"]:
            for part in ("mean", "p99"):
                group, d = f"{100 * r['load']:.0f}% {part}", r[f"{figure}_{part}"]
                values[("live", group)], values[("simulated", group)] = d["live"], d["simulated"]
                scatter[("live", group)] = d["live"] * (d["scatter_percent"] or 0) / 100
        return list(dict.fromkeys(g for _, g in values)), ["live", "simulated"], values, None, scatter

    svg(file, f"{doc['requests']:,} requests at parts of the capacity, live ({doc['rows'][0]['repeats']} runs) and simulated", source(path, doc),
        [("ms for each output token (TPOT)", *of("tpot")), ("ms to the first token (TTFT)", *of("ttft"))])


OF_BENCHMARK = {"fair": fair, "slo": slo, "simulate": simulate}  # docs/chart-NAME.svg from bench/results/NAME-*.json


def newest(name):
    """The result of a benchmark that was stored last, or None."""
    return max(RESULTS.glob(f"{name}-*.json"), key=lambda p: json.loads(p.read_text())["date"], default=None)


def main():
    cpu()
    for name, draw in OF_BENCHMARK.items():
        if path := newest(name):
            draw(path, DOCS / f"chart-{name}.svg")
    decode, prefill = gpu()
    batches = [1, 16, 64]
    pick = {t: {k: v for k, v in d.items() if k[1] in batches} for t, d in decode.items()}
    svg(DOCS / "chart-gpu.svg", "Decoding on one NVIDIA H200, the shape of Llama 3 8B",
        "Tokens per second of the engine alone, context 1,024, random weights. llama.cpp: llama-bench and llama-batched-bench.",
        [("Q4_0, by batch", batches, ["vramd", "llama.cpp"], pick["q4_0"]), ("BF16, by batch", batches, ["vramd", "PyTorch"], pick["bf16"])])
    print("| tokens/s on an H200 | batch 1 | 16 | 64 | prefill of 4,096 |\n|---|---|---|---|---|")
    for engine, t in (("vramd", "q4_0"), ("llama.cpp", "q4_0"), ("vramd", "bf16"), ("PyTorch", "bf16")):
        cells = [decode[t].get((engine, b)) for b in batches] + [prefill.get((engine, t))]
        print(f"| {engine}, {t.upper()} | " + " | ".join(f"{v:,.0f}" if v else "" for v in cells) + " |")


if __name__ == "__main__":
    main()
