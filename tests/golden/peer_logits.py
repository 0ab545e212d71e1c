"""llama.cpp's logits of a model: peer_logits.c, compiled against the libllama of a build (bench/build_peer.sh prints its folder)."""

import struct
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def peer_logits(bin_dir, model, tokens, n_vocab, threads, flash, folder, arch=None):
    """[n, n_vocab] of tokens, in one batch. arch: that of a model that has no vocabulary; its cache is F32, else F16.
    folder: where the compiled program is kept."""
    exe = Path(folder) / "peer_logits"
    root = bin_dir.parent.parent
    if not exe.exists():
        subprocess.run(["cc", "-O2", "-o", exe, HERE / "peer_logits.c", f"-I{root}/include",
                        f"-I{root}/ggml/include", f"-L{bin_dir}", f"-Wl,-rpath,{bin_dir}", "-lllama",
                        "-lggml", "-lggml-base"], check=True)
    data = struct.pack("<2i", len(tokens), len(tokens)) + np.array(tokens, "<i4").tobytes()
    bare = [str(n_vocab), arch] if arch else []
    out = subprocess.run([exe, model, str(threads), str(int(flash)), *bare], input=data, stdout=subprocess.PIPE, check=True)
    return np.frombuffer(out.stdout, "<f4").reshape(len(tokens), n_vocab)
