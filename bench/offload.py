"""Layers in the host's memory beside a device, T=offload of bench_techniques.py: bytes of both memories as planned and as held, with the
CUDA engine on the CPU (tests/cushim; make cuda-shim). That engine says nothing of a card's speed: no time is measured."""

import sys

from bench_common import *

LAYERS = 12
ABOUT = (f"a model of {LAYERS} layers with random weights in F16, a KV cache of 256 tokens, on the emulator: bytes, no speeds; "
         "planned by vramd plan, held as the ledger of a server counts them")


def plugin():
    return BUILD / "vramd-cuda-shim.so"


def options(layers, how):
    return ["--backend", "cuda", "--cuda-plugin", plugin().resolve(), "--max-model-len", 128, "--max-num-seqs", 2, "--max-num-batched-tokens", 4,
            "--kv-cache-tokens", 256, "--gpu-layers", layers, "--offload", how]


def weights(classes, key):
    return sum(c[key] for c in classes if c["class"] == "weights")


def row(layers, how, model):
    p = subprocess.run([BUILD / "vramd", "plan", "--json", model, *map(str, options(layers, how))], check=True, stdout=subprocess.PIPE, text=True)
    plan = json.loads(p.stdout)
    server = vramd_server(*options(layers, how), model=model)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/memory") as r:
            held = json.load(r)
    finally:
        server.stop()
    others = ", the CPU computes the others" if how == "compute" else ""
    return {"technique": "offload", "variant": f"{layers}{others}", "device_planned": plan["total_bytes"], "device_held": held["device"]["ledger_bytes"],
            "host_weights_planned": weights(plan["host"]["terms"], "bytes"), "host_weights_held": weights(held["classes"], "ledger_bytes"),
            "slots_bytes": sum(t["bytes"] for t in plan["terms"] if "slots for" in t["what"]), "step_bytes": plan.get("offload", {}).get("step_bytes", 0)}


def run():
    if not plugin().exists():
        sys.exit(f"{plugin()} is not there: make cuda-shim")
    sys.path.insert(0, str(ROOT / "tests" / "e2e"))
    from tiny_model import write
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "deep.gguf"
        write(str(model), "F16", layers=LAYERS)
        return [row(n, "copy", model) for n in ("all", 9, 6, 3, 0)] + [row(n, "compute", model) for n in (9, 6, 3, 0)]


def table(rows):
    n = lambda v: f"{v:,}"
    out = [f"{ABOUT[0].upper()}{ABOUT[1:]}.", "",
           "| layers on the device | the device, planned | held | host's weights, planned | held | of the device: two slots | a step copies |",
           "|---|---:|---:|---:|---:|---:|---:|"]
    keys = ("device_planned", "device_held", "host_weights_planned", "host_weights_held", "slots_bytes", "step_bytes")
    return "\n".join(out + ["| " + " | ".join([r["variant"], *(n(r[k]) for k in keys)]) + " |" for r in rows]) + "\n"
