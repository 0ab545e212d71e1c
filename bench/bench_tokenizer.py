#!/usr/bin/env python3
"""Encoding the same English text (Debian's /usr/share/common-licenses) by vramd and by llama.cpp, MB a second of one
thread's processor time, with
a byte-level BPE vocabulary (that of the small real model) and SentencePiece ones (Gemma 3's, where tools/get-model.sh
gemma3 has put it; others by --vocabulary), in pieces of 4 KiB (a prompt) and in one. Rounds alternate; stored are
medians and the median of the rounds' ratios. The ids must be the same."""

import argparse
import hashlib

from bench_common import *

LICENSES = ["Apache-2.0", "Artistic", "GFDL-1.3", "GPL-3", "LGPL-2.1", "MPL-2.0"]


def build_peer_tokenizer():
    exe, source, bins = BUILD / "peer_tokenizer", ROOT / "bench" / "peer_tokenizer.c", peer_bin()
    tree = bins.parent.parent
    subprocess.run(["cc", "-O2", "-std=c11", "-D_GNU_SOURCE", "-I", tree / "include", "-I", tree / "ggml" / "include",
                    "-o", exe, source, "-L", bins, "-lllama", f"-Wl,-rpath,{bins}"], check=True)
    return exe


def run(exe, *args):
    return json.loads(subprocess.run([exe, *map(str, args)], check=True, text=True, stdout=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL).stdout)


def compare(vocabulary, text, piece, options, peer):
    mine, theirs = [], []
    for _ in range(options.rounds):
        mine.append(run(BUILD / "bench_tokenizer", vocabulary, text, piece, options.seconds))
        if peer:
            theirs.append(run(peer, vocabulary, text, piece, options.seconds))
    row = {"vocabulary": vocabulary.name, "piece_bytes": piece, "tokens": mine[0]["tokens"],
           "vramd_mb_per_s": round(median([m["mb_per_s"] for m in mine]), 2)}
    if theirs:
        if any(t["hash"] != mine[0]["hash"] for t in theirs):
            raise SystemExit(f"{vocabulary.name}: other ids than llama.cpp's")
        row |= {"llama_cpp_mb_per_s": round(median([t["mb_per_s"] for t in theirs]), 2),
                "ratio": round(median([m["mb_per_s"] / t["mb_per_s"] for m, t in zip(mine, theirs)]), 2)}
    return row


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--seconds", type=float, default=0.3)
    ap.add_argument("--vocabulary", type=Path, action="append", default=[])
    options = ap.parse_args()
    vocabularies = [Path(model_path())]
    gemma = vocabularies[0].parent / "gemma-3-270m.Q4_K_M.gguf"
    vocabularies += ([gemma] if gemma.exists() else []) + options.vocabulary
    peer = build_peer_tokenizer() if peer_bin() else None
    data = b"".join((Path("/usr/share/common-licenses") / name).read_bytes() for name in LICENSES)
    rows = []
    with tempfile.NamedTemporaryFile(suffix=".txt") as f:
        f.write(data)
        f.flush()
        for vocabulary in vocabularies:
            for piece in 4096, len(data):
                rows.append(compare(vocabulary, f.name, piece, options, peer))
                print(rows[-1])
    save("tokenizer", rows, text={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


if __name__ == "__main__":
    main()
