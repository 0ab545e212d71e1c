"""Weights by type and by how they were rounded: bytes, speed and loss, for bench_techniques.py (T=weights). The model is the test model with
its channels rescaled in pairs, float32 (bench/quant_source.py); texts are calibrated on and evaluated apart from each other."""

from bench_common import *

# (type, method of vramd quantize, activations)
ROWS = [("F32", "rtn", "f32"), ("BF16", "rtn", "f32"), ("BF16", "rtn", "bf16"), ("Q8_0", "rtn", "f32"), ("Q8_0", "rtn", "int8"),
        ("Q8_0", "smooth", "int8"), ("Q6_K", "rtn", "int8"), ("Q4_K", "rtn", "f32"), ("Q4_K", "imatrix", "f32"), ("Q4_K", "gptq", "f32"),
        ("Q4_1", "rtn", "f32"), ("Q4_1", "imatrix", "f32"), ("Q4_1", "awq", "f32"), ("Q4_1", "gptq", "f32"), ("Q4_1", "awq+gptq", "f32"),
        ("Q4_0", "rtn", "f32"), ("Q4_0", "rtn", "int8"), ("Q4_0", "gptq", "f32"), ("Q4_0", "gptq", "int8"), ("Q3_K", "imatrix", "f32"),
        ("Q2_K", "imatrix", "f32")]
CONTEXT = 512
SERVER = ["--max-num-seqs", 1, "--max-model-len", 512, "--kv-cache-tokens", 512, "--no-prefix-caching"]


def speed(path, activations, body, measured):
    """Weights planned and held, bytes; if they are to be measured, tokens a second of prompt and of output, of one stream."""
    s = vramd_server(*SERVER, "--activation-dtype", activations, model=path)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{s.port}/v1/memory") as r:
            held = next(c for c in json.load(r)["classes"] if c["class"] == "weights")
        out = {"bytes": held["plan_bytes"], "ledger_bytes": held["ledger_bytes"]}
        if not measured:
            return out
        run_load(s.port, 1, [body(8, 4)])
        got = [run_load(s.port, 1, [body(256, 32)])[0] for _ in range(3)]
    finally:
        s.stop()
    return {**out,
            "prefill_tokens_per_s": round(median([256e6 / g["ttft_us"] for g in got]), 1),
            "decode_tokens_per_s": round(median([1e6 * len(g["gaps_us"]) / sum(g["gaps_us"]) for g in got]), 1)}


def quantise(source, out, kind, method, how, imatrix):
    """how: options of a method with a text. imatrix: the importance matrix of that text, a file that the first row with it writes."""
    if method == "imatrix":
        how = ["--imatrix", imatrix] if imatrix.exists() else [*how, "--write-imatrix", imatrix]
    vramd("quantize", source, out, "--force", "--type", kind, *([] if method == "rtn" else ["--method", method, *how]))


def run(tokens, fit, body, only=None, old=(), go_on=False):
    """Rows, one after the other as they are measured. body(n_prompt, n_output): a request. only: quality, speed or None, both. old: rows
    that have what is not measured; go_on: those that have what is wanted are left out."""
    known = {(r["variant"], r["method"], r["activations"]): r for r in old}
    wanted = {"quality": {"kl"}, "speed": {"decode_tokens_per_s"}}.get(only, {"kl", "decode_tokens_per_s"})
    rows = [r for r in ROWS if not (go_on and wanted <= known.get(r, {}).keys())]
    python = subprocess.check_output([ROOT / "tools" / "venv.sh"], text=True).strip()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source, reference, held = folder / "source.gguf", folder / "f32.ref", text_of("hamlet")
        subprocess.run([python, ROOT / "bench" / "quant_source.py", model_path(), source], check=True)
        evaluate = ["--file", held, "--context", CONTEXT, "--tokens", tokens, "--json"]
        if only != "speed":
            vramd("eval", source, *evaluate, "--activation-dtype", "f32", "--write-reference", reference)
        for kind, method, activations in rows:
            path = folder / f"{kind}-{method}.gguf"
            if not path.exists():
                for of_row_before in folder.glob("Q*.gguf"):
                    of_row_before.unlink()
                quantise(source, path, kind, method, ["--calibrate", text_of("plays"), "--calibrate-tokens", fit, "--no-check"],
                         folder / "imatrix")
            new = {"technique": "weights", "variant": kind, "method": method, "activations": activations, "tokens": tokens, "fit": fit,
                   "file_bytes": path.stat().st_size, **speed(path, activations, body, only != "quality")}
            if only != "speed":
                j = json.loads(vramd("eval", path, *evaluate, "--activation-dtype", activations, "--other-weights", "--reference", reference))
                new |= {key: j[key] for key in ("perplexity", "kl", "top1")}
            yield {**known.get((kind, method, activations), {}), **new}


def table(rows, doc):
    numbers = next(r["file_bytes"] for r in rows if r["variant"] == "F32") / 4
    out = [f"{doc['model_file']} with its channels rescaled (float32), {rows[0]['tokens']:,} tokens of Hamlet, calibrated on {rows[0]['fit']:,} "
           f"tokens of other plays; {doc['threads']} threads of {doc['machine']['cpu']}, one stream.", "",
           "| weights | method | activations | bits | planned, MiB | held, MiB | prompt, tokens/s | output, tokens/s | perplexity | "
           "KL to float32 | same likeliest token |", "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for r in rows:
        speeds = [f"{r[k]:,.0f}" if k in r else "not measured" for k in ("prefill_tokens_per_s", "decode_tokens_per_s")]
        losses = [f"{r['perplexity']['value']:.3f}", loss(r), f"{100 * r['top1']['value']:.1f} %"] if "kl" in r else ["not measured"] * 3
        out.append(f"| {r['variant']} | {r['method']} | {r['activations']} | {8 * r['file_bytes'] / numbers:.2f} | {r['bytes'] / 2**20:,.1f} | "
                   f"{r['ledger_bytes'] / 2**20:,.1f} | {' | '.join([*speeds, *losses])} |")
    return "\n".join(out) + "\n"


def loss(row):
    kl = row["kl"]
    return f"{kl['value']:.5f}" + (f" +- {kl['se']:.5f}" if kl["se"] is not None else "")


def qat_table(doc):
    """Of a document of bench/qat.py."""
    out = [f"A model of bytes (llama, {doc['parameters'] / 1e6:.1f} M parameters), trained in {doc['steps']} steps and {doc['steps'] // 4} more for "
           f"each type; {doc['tokens']:,} bytes of Hamlet, which it has not seen. KL is from the one that was trained on in float32.", "",
           "| weights | made by | activations | perplexity | KL to float32 | same likeliest token |", "|---|---|---|---:|---:|---:|"]
    for r in doc["rows"]:
        made = "training for it (QAT)" if r["trained_for"] == r["type"] != "F32" else "training for Q4_0, not rounded" if r["trained_for"] != "F32" \
            else {"rtn": "rounding"}.get(r["method"], r["method"])
        out.append(f"| {r['type']} | {made} | {r['activations']} | {r['perplexity']['value']:.4f} | {loss(r)} | {100 * r['top1']['value']:.2f} % |")
    return "\n".join(out) + "\n"
