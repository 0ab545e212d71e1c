#!/usr/bin/env python3
"""The engine against llama.cpp's, same file, same threads: decoding at depths 0, 1,024 and 4,096,
and a prefill of 512; of the test model, or of random weights in the shape of Llama-3 models
(--shape 1b, 3b, 8b: decoding at depth 0 and the prefill alone), made and deleted by this script. Beside each row the
limit of that minute: for decoding what the threads read by plain reading, for prefill their highest
rate of 8-bit products. Each case alternates on its own, seconds apart, since the machine may drift:
a round runs vramd, then llama-bench with flash attention off and on, and its better setting
counts (from the second round on only the one that was better by far, if one was); then that of ik_llama.cpp, where
VRAMD_PEER_IK names its programs (`bench/build_peer.sh ik SOURCE`), with its weights repacked at run time or not. Printed and
stored: medians, and the median of the rounds' ratios. With --cpu-isa both have the instructions of a lesser
CPU: the peer is llama.cpp as `bench/build_peer.sh avx2` (or avxvnni) builds it, beside the one of VRAMD_PEER_LLAMA.
--family bf16: vramd with activation_dtype = bf16."""

import argparse
from dataclasses import dataclass, field

from bench_common import *

CASES = [("decode", 0), ("decode", 1024), ("decode", 4096), ("prefill", 0)]
PREFILL, TOKENS = 512, 64
SHAPE_CASES = [("decode", 0), ("prefill", 0)]
CLEAR = 1.25  # a setting of -fa this much better in the first round is not tried again


ISA = None  # of both, where it is not the best
FAMILY = None  # of vramd's activations, where it is not the default


def peer_folder():
    """llama.cpp's programs for ISA, or None."""
    best = peer_bin()
    if not ISA or not best:
        return best
    folder = best.parent.parent / f"build-{ISA}" / "bin"
    return folder if (folder / "llama-bench").exists() else None


def ours(model, case, depth, ops=0):
    decode = case == "decode"
    with tempfile.NamedTemporaryFile("r", suffix=".json") as f:
        subprocess.run([BUILD / "bench_engine", "--model", model, "--threads", str(THREADS), "--batches", "", "--ops", str(ops),
                        "--depths", str(depth) if decode else "", "--prefill", "" if decode else str(PREFILL),
                        "--tokens", str(TOKENS), "--reps", "1", "--json", f.name, *(["--isa", ISA] if ISA else []),
                        *(["--family", FAMILY] if FAMILY else [])],
                       check=True, stdout=subprocess.DEVNULL)
        (row,) = json.load(f)["rows"]
    return row


def limit(model, case, depth):
    """What part of its bound a case reaches, measured in the same run."""
    row = ours(model, case, depth, ops=1)
    names = ("step_mb", "read_gb_s", "of_read_rate") if case == "decode" else ("int8_peak_gop_s", "of_peak", "matrices_share")
    return {name: row[name] for name in names}


@dataclass
class Peer:
    """A llama-bench, the settings of which the better one counts, and what it measured."""
    name: str
    folder: Path
    settings: list
    runs: list = field(default_factory=list)

    def tokens_per_s(self, model, case, depth, setting):
        decode = case == "decode"
        at = [] if not decode or depth == 0 else ["-d", str(depth)]
        out = subprocess.run([self.folder / "llama-bench", "-m", model, "-t", str(THREADS),
                              "-p", "0" if decode else str(PREFILL), "-n", str(TOKENS) if decode else "0",
                              *at, *setting.split(), "-r", "1", "-o", "json"],
                             check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        (row,) = json.loads(out[out.index("["):])
        return row["avg_ts"]

    def run(self, model, case, depth):
        got = {s: self.tokens_per_s(model, case, depth, s) for s in self.settings}
        best = max(got, key=got.get)
        if not self.runs and got[best] > CLEAR * min(got.values()):
            self.settings = [best]
        self.runs.append(got[best])


def peers(depth):
    found = []
    if peer_folder():
        found.append(Peer("llama_cpp", peer_folder(), ["-fa 0", "-fa 1"]))
    ik = os.environ.get("VRAMD_PEER_IK")
    if ik and not ISA and depth == 0:  # its llama-bench has no -d
        found.append(Peer("ik_llama_cpp", Path(ik), ["-fa 1 -rtr 0", "-fa 1 -rtr 1"]))
    return found


def compare(model, case, depth, rounds):
    mine, others = [], peers(depth)
    for _ in range(rounds):
        mine.append(ours(model, case, depth)["tokens_per_s"])
        for p in others:
            p.run(model, case, depth)
    row = {"case": case, "depth": depth, "vramd_tokens_per_s": round(median(mine), 1)}
    for p in others:
        ratio = "ratio" if p.name == "llama_cpp" else f"ratio_{p.name}"
        row |= {f"{p.name}_tokens_per_s": round(median(p.runs), 1),
                ratio: round(median([m / t for m, t in zip(mine, p.runs)]), 3),
                f"{p.name}_settings": p.settings, f"{p.name}_runs": [round(t, 1) for t in p.runs]}
    return row | limit(model, case, depth) | {"vramd_runs": [round(m, 1) for m in mine]}


def made(folder, shape, kind):
    """A file of random weights; the matrix of logits in Q6_K, as Q4_K_M has it."""
    path = Path(folder) / f"{shape}.gguf"
    subprocess.run([sys.executable, ROOT / "bench" / "make_model.py", path, "--shape", shape, "--type", kind, "--head-type", "Q6_K"], check=True)
    return path


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--shape", choices=["1b", "3b", "8b"])
    ap.add_argument("--type", default="Q4_K")
    ap.add_argument("--dir", default=tempfile.gettempdir(), help="for the model of --shape: 0.8 GB to 5 GB")
    ap.add_argument("--family", choices=["bf16"], help="of vramd's activations")
    ap.add_argument("--cpu-isa", choices=["avx2", "avxvnni"], help="no better instructions, of the peer neither")
    a = ap.parse_args()
    global ISA, FAMILY
    ISA, FAMILY = a.cpu_isa, a.family
    if not peer_bin():
        print("engine: VRAMD_PEER_LLAMA names no llama.cpp build: measuring vramd alone")
    elif not peer_folder():
        print(f"engine: no llama.cpp for {ISA} beside VRAMD_PEER_LLAMA (bench/build_peer.sh {ISA} builds it): measuring vramd alone")
    cases, name = (SHAPE_CASES, f"engine-{a.shape}-{a.type.lower()}") if a.shape else (CASES, "engine")
    name += "".join(f"-{x}" for x in (ISA, FAMILY) if x)
    with tempfile.TemporaryDirectory(dir=a.dir) as folder:
        model = made(folder, a.shape, a.type) if a.shape else model_path()
        rows = []
        for case, depth in cases:
            rows.append(compare(model, case, depth, a.rounds))
            print(rows[-1], flush=True)
    save(name, rows, rounds=a.rounds, prefill_tokens=PREFILL, decode_tokens=TOKENS, **({"model_file": f"{a.shape}, {a.type}, random weights"} if a.shape else {}),
         **({"cpu_isa": ISA} if ISA else {}), **({"activation_dtype": FAMILY} if FAMILY else {}),
         note="of each peer the better of its settings in each round; ratio: median of the rounds' ratios")


if __name__ == "__main__":
    main()
