#!/usr/bin/env python3
"""A static model of the CUDA engine's speed: reads the kernels that nvcc has compiled and the shapes of a model, and prints
tokens per second that are PREDICTED, not measured, beside the limit that the memory's bandwidth sets.

    tools/cuda_model.py kernels [--sm 90]     registers, what is spilled, and the hot loops
    tools/cuda_model.py check [--write]       fails where a kernel spills, where its instructions a byte are 5% more
                                              than in tools/cuda_kernels.json, or where products by wgmma wait for each
                                              other; --write makes that file
    tools/cuda_model.py predict [--card h100-80g,h200] [--types bf16,q4_0] [--batch 1,8] [--context 1024] [--apart]
    tools/cuda_model.py many [--card h100-80g] [--types q4_0] [--rows 128,512,2048]
                                              of prompts: the matrices of a layer by k_many, alone
    tools/cuda_model.py error                 predictions against bench/results/cuda-*.json

It needs nvcc ($NVCC, /usr/local/cuda/bin/nvcc) and cuobjdump ($CUOBJDUMP, PATH, beside nvcc, or PyPI's
nvidia-cuda-cuobjdump); without them `kernels` and `check` say so and end with 0, and predictions take the stored kernels.

The model. A step is a sequence of kernels. One that reads b bytes takes

    overhead + max(b / read rate, instructions a byte of weights * b / (multiprocessors * 4 * clock * issue))

The second is what the multiprocessors can issue: 4 instructions of a warp a clock, a share `issue` of them in practice. Overhead, read rate
(a share of the datasheet's) and issue are fitted on the operations measured on an H100: issue on k_few's for up to 8 rows, and
for more on those of the kernel that k_packed has replaced. All else follows from shapes. Kernels that are parts of others now (rotation, the sum over splits, quantising) count nothing;
--apart counts each, as in the steps that were measured. Steps of 9 and more rows with weights of 16 bits are the library's, of packed ones k_packed's."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "tools/cuda_kernels.json"
RESULTS = ROOT / "bench/results"
SOURCES = ("linear_quant.cu", "linear_packed.cu", "linear_few.cu", "attn_decode.cu", "linear_many_sm90a.cu")
GROWTH = 1.05
CLOCK = 1.755e9  # of an H100; other cards are taken to have it, too


def find(variable, name, *beside):
    """A program: of an environment variable, of PATH, or of a folder."""
    for path in (os.environ.get(variable), shutil.which(name), *(folder / name for folder in beside)):
        if path and Path(path).is_file():
            return str(path)
    return None


def tools():
    """nvcc and cuobjdump, which runs nvdisasm, or why there are none."""
    nvcc = find("NVCC", "nvcc", Path("/usr/local/cuda/bin"))
    if not nvcc:
        return None, None, "no nvcc"
    packages = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    dump = find("CUOBJDUMP", "cuobjdump", Path(nvcc).parent, *sorted(packages.glob("*/bin")))
    if not dump:
        return nvcc, None, "no cuobjdump (pip install nvidia-cuda-cuobjdump, or set CUOBJDUMP)"
    if not find("NVDISASM", "nvdisasm", Path(dump).parent):
        return nvcc, None, f"no nvdisasm in PATH or beside {dump} (pip install nvidia-nvdisasm)"
    os.environ["PATH"] += f"{os.pathsep}{Path(dump).parent}"
    return nvcc, dump, None


# ---- compiled kernels


def compile_all(nvcc, sm, jobs):
    """The cubins of the sources and what ptxas says of them, in build/cuda-model while they are newer than every source."""
    out = ROOT / f"build/cuda-model/sm_{sm}"
    out.mkdir(parents=True, exist_ok=True)
    newest = max(p.stat().st_mtime for p in (ROOT / "engine").rglob("*") if p.suffix in (".cu", ".cuh", ".h"))

    def one(name):
        cubin, said = out / (name + ".cubin"), out / (name + ".txt")
        if not said.exists() or said.stat().st_mtime < newest:
            arch = f"{sm}a" if "_sm90a" in name else sm
            run = subprocess.run([nvcc, "-std=c++17", "-O3", f"-gencode=arch=compute_{arch},code=sm_{arch}", "-cubin", "-Xptxas", "-v",
                                  "-I.", "-D_GNU_SOURCE", "-o", str(cubin), f"engine/cuda/{name}"],
                                 cwd=ROOT, stderr=subprocess.PIPE, text=True)
            if run.returncode:
                sys.exit(run.stderr)
            said.write_text(run.stderr)
        return cubin, said.read_text()

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, (s for s in SOURCES if sm == "90" or "_sm90a" not in s)))


def read_usage(said):
    """{function: registers, bytes that are spilled} of ptxas -v."""
    found = {}
    pattern = (r"Function properties for (\S+)\n\s*\d+ bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
               r".*?Used (\d+) registers")
    for m in re.finditer(pattern, said):
        found[m[1]] = (int(m[4]), int(m[2]) + int(m[3]))
    return found


def read_serial(said):
    """Functions whose products by wgmma wait for each other, as ptxas says, since something else writes their registers."""
    return set(re.findall(r"wgmma\.mma_async instructions are serialized .* in the function '(\S+)'", said))


def demangled(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, text.splitlines()))


# What is in mangled or demangled template arguments: numbers of model/dtype.h.
DTYPES = {m[2]: m[1] for m in re.finditer(r"X\(DT_(\w+), (\d+), ", (ROOT / "model/dtype.h").read_text())}
DTYPES["1749"] = "F8"


def short(name):
    """void k_few<(dtype)2, 1, false>(few_params) -> k_few<Q4_0, 1, false>"""
    name = re.sub(r"^(void|static) ", "", name).replace("(anonymous namespace)::", "")
    name = re.sub(r"\(dtype\)(\d+)", lambda m: DTYPES.get(m[1], m[1]), name)
    name = re.sub(r"\((?:int|bool|unsigned int|attn_form)\)", "", name)
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            name = name[:i]
            break
    name = name.replace("__nv_bfloat16", "bf16").replace("__half", "f16")
    return re.sub(r", \w+<[^<>]*> ?>$", ">", name)  # what follows from the other arguments


WIDTHS = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


def loaded(op):
    """Bytes that a thread's instruction reads of global memory, past which it is no load."""
    if not re.match(r"LDG|LDGSTS", op):
        return 0
    return next((WIDTHS[part] for part in op.split(".")[1:] if part in WIDTHS), 4)


def read_code(text):
    """{function: [(address, operation, target or None)]} of cuobjdump -sass."""
    functions, code = {}, None
    for line in text.splitlines():
        if m := re.match(r"\s*Function : (\S+)", line):
            code = functions.setdefault(m[1], [])
        elif code is not None and (m := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)(.*?);", line)):
            target = re.search(r"0x([0-9a-f]+)", m[3]) if m[2].startswith("BRA") else None
            code.append((int(m[1], 16), m[2], int(target[1], 16) if target else None))
    return functions


def hot_loop(code):
    """Instructions, loaded bytes of a lane, and products by tensor cores of the loop where the kernel's work is: the shortest
    of those with the most products, else the one that loads the most for an instruction."""
    loops = []
    for at, _, target in code:
        if target is not None and target <= at:
            body = [op for address, op, _ in code if target <= address <= at]
            loops.append((len(body), sum(map(loaded, body)), sum("MMA" in op for op in body)))
    return max(loops, key=lambda x: (x[2], -x[0] if x[2] else x[1] / x[0]), default=(0, 0, 0))


def work(instructions, size, products):
    """Instructions of a warp for a product by tensor cores, whose weights are a fixed number of bytes; of a kernel without
    products for a byte that it loads. None: no such loop."""
    if products:
        return round(instructions / products, 3)
    return round(instructions / (32 * size), 5) if size else None


def read_kernels(sm, jobs):
    """{kernel: figures}, or why there are none."""
    nvcc, dump, lacks = tools()
    if lacks:
        return None, lacks
    kernels = {}
    for cubin, said in compile_all(nvcc, sm, jobs):
        code = read_code(subprocess.run([dump, "-sass", str(cubin)], capture_output=True, text=True, check=True).stdout)
        usage, serial, names = read_usage(said), read_serial(said), demangled(list(code))
        for function, body in code.items():
            instructions, size, products = hot_loop(body)
            registers, spilled = usage.get(function, (0, 0))
            kernels[short(names[function])] = {
                "registers": registers, "spilled": spilled, "loop": instructions, "products": products,
                "work": work(instructions, size, products)}
            if function in serial:
                kernels[short(names[function])]["serial"] = True
    return {"nvcc": version(nvcc), "sm": sm, "kernels": dict(sorted(kernels.items()))}, None


def version(nvcc):
    return re.search(r"V([\d.]+)", subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout)[1]


def stored():
    return json.loads(BASELINE.read_text())


def weights_of(name):
    """The type of a kernel of matrices, as BITS names it; None: of another."""
    m = re.match(r"k_(?:few|packed|experts_packed|many|linear_few|experts_few)<(\w+),", name)
    return m and m[1].lower()


def print_kernels(found):
    print(f"{'kernel':44} {'registers':>9} {'spilled':>7} {'loop':>5} {'products':>8} {'instructions a byte of weights':>31}")
    for name, k in found["kernels"].items():
        kind = weights_of(name)
        known = kind in BITS and k["products"]
        figure = f"{k['loop'] / (k['products'] * weight_bytes_a_product(name, kind)):.3f}" if known else "-"
        print(f"{name:44} {k['registers']:9} {k['spilled']:7} {k['loop']:5} {k['products']:8} {figure:>31}")


def faults(found, base):
    """What is worse than it may be: kernels that spill more than is stored, and those that grew."""
    was = base["kernels"]
    out = [f"{name}: {k['spilled']} bytes are spilled, stored are {was.get(name, {}).get('spilled', 0)}"
           for name, k in found["kernels"].items() if k["spilled"] > was.get(name, {}).get("spilled", 0)]
    out += [f"{name}: products by wgmma wait for each other" for name, k in found["kernels"].items() if k.get("serial")]
    if base["nvcc"] != found["nvcc"] or base["sm"] != found["sm"]:
        print(f"instructions a byte are not compared: stored are those of nvcc {base['nvcc']} for sm_{base['sm']}")
        return out
    for name, k in found["kernels"].items():
        work_was = was.get(name, {}).get("work")
        if work_was and (k["work"] is None or k["work"] > work_was * GROWTH):
            out.append(f"{name}: the hot loop has {k['work']} instructions a unit of work, stored are {work_was}")
    return out


def check(args):
    Model(stored()["kernels"])  # reads cards.c and what was measured: says so if it no longer can
    found, lacks = read_kernels(args.sm, args.jobs)
    if lacks:
        print(f"cuda-model-check: skipped, {lacks}")
        return 0
    if args.write:
        BASELINE.write_text(json.dumps(found, indent=1) + "\n")
    wrong = faults(found, stored())
    for line in wrong:
        print(line)
    print(f"cuda-model-check: {len(found['kernels'])} kernels, {len(wrong)} worse than they may be")
    return 1 if wrong else 0


# ---- the model of a step

# Llama-3-8B: outputs and inputs of the matrices of a layer, and of the last one.
LAYERS, KV_ROW, VOCAB = 32, 2 * 8 * 128, 128256
MATRICES = {"qkv": (6144, 4096), "attn_output": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}
LOGITS = {"logits": (VOCAB, 4096)}
# Bits of a weight on the device (engine/cuda/packed.h): codes, then scales and minima of 16 bits; f8: a scale for each output.
BITS = {"bf16": 16, "f16": 16, "q8_0": 8.5, "q4_0": 4.5, "q4_1": 5, "q5_0": 5.5, "q5_1": 6, "q2_k": 4, "q3_k": 4, "q6_k": 7,
        "iq4_nl": 4.5, "mxfp4": 4.5, "f8": 8}
# What a file's types become (engine/cuda/upload.h).
STORED = {"q4_k": "q4_1", "q5_k": "q5_1", "iq4_xs": "iq4_nl"}
FEW = 8
# Instructions of a warp for a byte of Q4_0's weights of k_many, in tiles of 64 rows of bf16: the kernel of 9 and more rows when
# the operations were measured, which is gone (460 for two tiles of 16 outputs by 64 inputs).
MANY = 460 / (2 * 576)


def kernel_of(kind, rows):
    """The kernel that multiplies rows by weights of a type; None: the library's."""
    if kind in ("bf16", "f16"):
        return f"k_linear_few<{kind}, {1 if rows <= 2 else 2}" if rows <= FEW else None
    if rows <= FEW and kind != "f8":
        return f"k_few<{kind.upper()}, {1 if rows <= 2 else 2}, false>"
    return f"k_packed<{kind.upper()}, bf16, {tiles_of(rows)}>"


def tiles_of(rows):
    """Of eight rows, that k_packed has."""
    return next(n for n in (1, 2, 4, 8) if rows <= 8 * n or n == 8)


def weight_bytes_a_product(name, kind):
    """A product by tensor cores takes 16 outputs by 16 or 32 inputs (engine/cuda/quant.cuh); types with a minimum have as many
    products again where the sums of the activations come from ones."""
    tile = 16 * 64 * BITS[kind] / 8
    name = name.replace("experts_", "")
    by_16, has_min = kind in ("q2_k", "q3_k", "q6_k"), kind in ("q4_1", "q5_1", "q2_k")
    if name.startswith("k_many"):  # a warp's part of a product of wgmma: 16 outputs by 16 inputs
        return tile / 4
    if name.startswith("k_few"):
        return tile / (2 if not by_16 else 8 if has_min else 4)
    return tile / (4 * (tiles_in(name) if name.startswith("k_packed") else 1) * (2 if has_min else 1))


def tiles_in(name):
    return int(name.rstrip(">").split(", ")[2])


def per_weight_byte(kernels, kind, rows):
    """Instructions of a warp for a byte of weights; 0: of a kernel that is not known."""
    name = kernel_of(kind, rows)
    found = name and next((k for n, k in kernels.items() if n.startswith(name)), None)
    if not found or not found["products"]:
        return 0
    return found["loop"] / (found["products"] * weight_bytes_a_product(name, kind))


def cards():
    """{name: (multiprocessors, GB/s of the datasheet)} of engine/cuda/cards.c."""
    row = re.compile(r'\{"([\w-]+)", "[^"]+", \d+, (\d+), (\d+), \d+, (\d+), \d+, "')
    return {m[1]: (int(m[2]), int(m[4])) for m in row.finditer((ROOT / "engine/cuda/cards.c").read_text()) if int(m[3]) >= 8}


def matrix_bytes(shape, kind):
    return shape[0] * shape[1] * BITS[kind] / 8


class Model:
    """Fitted on the operations of one card; others differ by bandwidth and multiprocessors."""

    def __init__(self, kernels, results="cuda-operations-h100.json", card="h100-80g"):
        self.kernels, self.cards = kernels, cards()
        self.fitted = json.loads((RESULTS / results).read_text())["rows"]
        self.overhead, self.share, self.issue, self.small = self.fit(card)
        self.issue_many = self.fit_many(card)

    def times(self, op, kind, rows):
        return [r["us"] for r in self.fitted if (r["op"], r["type"].lower(), r["rows"]) == (op, kind, rows)]

    def fit(self, card):
        """Overhead and share by least squares on bf16 at one row, issue by the least error on Q4_0 (1 and 8 rows), and the
        time of kernels that only pass a row on."""
        sms, rate = self.cards[card]
        points = [(matrix_bytes(shape, "bf16"), t) for op, shape in {**MATRICES, **LOGITS}.items()
                  for t in self.times(op, "bf16", 1)]
        # Relative errors count: each row is divided by its time.
        a11 = sum(1 / t ** 2 for _, t in points)
        a12 = sum(b / t ** 2 for b, t in points)
        a22 = sum((b / t) ** 2 for b, t in points)
        b1, b2 = sum(1 / t for _, t in points), sum(b / t for b, t in points)
        det = a11 * a22 - a12 ** 2
        overhead, slope = (a22 * b1 - a12 * b2) / det, (a11 * b2 - a12 * b1) / det
        share = 1e-3 / (slope * rate)
        small = {op: self.times(op, "f32" if op.startswith("sample") else "bf16", 1)[0]
                 for op in ("add_norm", "gate", "quantize", "rope_append", "sample_greedy")}
        self.overhead, self.share, self.small = overhead, share, small

        def error(issue):
            self.issue = issue
            return sum(abs(self.matrix(op, shape, "q4_0", rows, sms, rate) / t - 1)
                       for op, shape in {**MATRICES, **LOGITS}.items() for rows in (1, 8) for t in self.times(op, "q4_0", rows))

        issue = min((i / 100 for i in range(20, 101)), key=error)
        return overhead, share, issue, small

    def fit_many(self, card):
        """The share of the issue slots that kernels of 16-bit products and packed weights reach, by what k_many reached where
        it had tiles for several waves."""
        sms, _ = self.cards[card]
        slots = MANY * matrix_bytes(LOGITS["logits"], "q4_0") / (sms * 4 * CLOCK) * 1e6
        shares = [slots * rows / 64 / (t - self.overhead) for rows in (64, 256) for t in self.times("logits", "q4_0", rows)]
        return sum(shares) / len(shares)

    def matrix(self, _, shape, kind, rows, sms, rate):
        """Microseconds."""
        size = matrix_bytes(shape, kind)
        bytes_us = size / (self.share * rate * 1e3)
        slots = per_weight_byte(self.kernels, kind, rows) * size
        issue = self.issue_many if (kernel_of(kind, rows) or "").startswith("k_packed") else self.issue
        return self.overhead + max(bytes_us, slots / (sms * 4 * CLOCK * issue) * 1e6)

    def attention(self, rows, context, rate, apart):
        """K and V of one layer read once; what a decode step of one row takes at least was measured, with a kernel of
        its own that sums over splits."""
        least = self.times("attn_decode", "bf16", 1)[0] - (0 if apart else self.overhead)
        return max(least, self.overhead + rows * context * KV_ROW * 2 / (self.share * rate * 1e3))

    def step(self, kind, rows, context, card, apart=False):
        """Milliseconds of a decode step, and the limit: all bytes at the datasheet's rate."""
        sms, rate = self.cards[card]
        layer = sum(self.matrix(op, shape, kind, rows, sms, rate) for op, shape in MATRICES.items())
        layer += self.attention(rows, context, rate, apart) + 2 * self.small["add_norm"]
        if apart:
            layer += self.small["rope_append"]
        if apart and kind not in ("bf16", "f16", "f8") and rows <= FEW:
            layer += 4 * self.small["quantize"]
        if rows > FEW and kind in ("bf16", "f16"):
            layer += self.small["gate"]
        total = LAYERS * layer + self.matrix("logits", LOGITS["logits"], kind, rows, sms, rate) + self.small["sample_greedy"]
        weights = LAYERS * sum(matrix_bytes(s, kind) for s in MATRICES.values()) + matrix_bytes(LOGITS["logits"], kind)
        return total / 1e3, (weights + LAYERS * rows * context * KV_ROW * 2) / (rate * 1e6)


def kernels_for_model(args):
    return stored()["kernels"]


def predict(args):
    m = Model(kernels_for_model(args))
    print(f"PREDICTED, not measured: Llama-3-8B shape, {args.context} tokens of context a sequence, K and V of 16 bits")
    print(f"{'card':12} {'type':7} {'batch':>5} {'predicted tokens/s':>19} {'limit tokens/s':>15} {'share':>6}")
    for card in args.card.split(","):
        if card not in m.cards:
            sys.exit(f"cuda_model: no card {card} of compute capability 8.0 or later in engine/cuda/cards.c")
        for kind in args.types.split(","):
            if kind not in {**BITS, **STORED}:
                sys.exit(f"cuda_model: no type {kind}; there are {', '.join({**BITS, **STORED})}")
            for rows in map(int, args.batch.split(",")):
                ms, floor = m.step(STORED.get(kind, kind), rows, args.context, card, args.apart)
                print(f"{card:12} {kind:7} {rows:5} {1e3 * rows / ms:19.0f} {1e3 * rows / floor:15.0f} {floor / ms:6.0%}")
    return 0


# Tiles of k_many: outputs, rows, sets of 64 outputs of a warpgroup, and what a tile takes as the kernel's choice has it
# (linear_many_sm90a.cu).
TILES = ((128, 64, 1, 34), (128, 128, 1, 56), (256, 128, 2, 100))


def ceil_div(a, b):
    return -(-a // b)


def time_many(m, shape, kind, rows, sms):
    """Seconds of a matrix by k_many: for each 64 inputs of a tile what the tensor cores take (2,048 products a clock) or what
    issuing the instructions of two warpgroups takes, whichever is longer. Memory is taken to keep up."""
    outs, inputs = shape
    waves = {t: ceil_div(ceil_div(outs, t[0]) * ceil_div(rows, t[1]), sms) for t in TILES}
    tile = min(TILES, key=lambda t: (t[3] * waves[t], -t[3]))
    k = m.kernels[f"k_many<{kind.upper()}, bf16, {tile[2]}, {tile[1]}>"]
    tensor, slots = k["products"] * tile[1], 8 * k["loop"] / (4 * m.issue)
    return waves[tile] * ceil_div(inputs, 64) * max(tensor, slots) / CLOCK


def many(args):
    m = Model(kernels_for_model(args))
    print("PREDICTED, not measured: matrices of a layer of the Llama-3-8B shape by k_many, bf16 activations, neither attention nor"
          " anything else")
    print(f"{'card':12} {'type':7} {'rows':>5} {'predicted us':>13} {'TFLOP/s':>8}")
    for card in args.card.split(","):
        for kind in args.types.split(","):
            for rows in map(int, args.rows.split(",")):
                seconds = sum(time_many(m, shape, kind, rows, m.cards[card][0]) for shape in MATRICES.values())
                flops = sum(2 * rows * outs * inputs for outs, inputs in MATRICES.values())
                print(f"{card:12} {kind:7} {rows:5} {1e6 * seconds:13.0f} {flops / seconds / 1e12:8.0f}")
    return 0


def error(args):
    """Rows that were not fitted on: whole steps, and another card."""
    m = Model(kernels_for_model(args))
    print(f"fitted on single operations of an H100: overhead {m.overhead:.2f} us, {m.share:.0%} of the datasheet's rate, "
          f"{m.issue:.0%} of the issue slots, of packed weights and more than {FEW} rows {m.issue_many:.0%}")
    print(f"{'file':32} {'type':6} {'batch':>5} {'predicted ms':>13} {'measured ms':>12} {'error':>7}")
    wrong = []
    for name, card in (("cuda-engine-{}-h100.json", "h100-80g"), ("cuda-engine-{}-h200.json", "h200")):
        for kind in ("bf16", "q4_0"):
            for row in json.loads((RESULTS / name.format(kind)).read_text())["rows"]:
                if row["case"] != "decode" or row["batch"] > 64:
                    continue
                ms, _ = m.step(kind, row["batch"], row["context"], card, apart=True)
                off = ms / row["ms"] - 1
                # Measured before k_packed, by a kernel that is gone.
                gone = kind == "q4_0" and row["batch"] > FEW
                if not gone:
                    wrong.append(abs(off))
                print(f"{name.format(kind):32} {kind:6} {row['batch']:5} {ms:13.2f} {row['ms']:12.2f} {off:7.0%}"
                      f"{'  (measured with an older kernel; not counted)' if gone else ''}")
    print(f"steps: mean error {sum(wrong) / len(wrong):.0%}, largest {max(wrong):.0%}")
    return 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("kernels", "check", "predict", "many", "error"))
    p.add_argument("--sm", default="90", help="compute capability that is compiled for")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--write", action="store_true")
    p.add_argument("--card")
    p.add_argument("--types")
    p.add_argument("--batch", default="1,8,16,64")
    p.add_argument("--rows", default="128,512,2048")
    p.add_argument("--context", type=int, default=1024)
    p.add_argument("--apart", action="store_true", help="count kernels that are parts of others now")
    args = p.parse_args()
    of_many = args.what == "many"
    args.card = args.card or ("h100-80g" if of_many else "h100-80g,h200,a100-80g,rtx4090")
    args.types = args.types or ("" if of_many else "bf16,") + "q8_0,q6_k,q4_1,q4_0,mxfp4"
    if args.what == "check":
        return check(args)
    if args.what == "predict":
        return predict(args)
    if args.what == "many":
        return many(args)
    if args.what == "error":
        return error(args)
    found, lacks = read_kernels(args.sm, args.jobs)
    if lacks:
        print(f"cuda_model: skipped, {lacks}")
    else:
        print_kernels(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
