#!/usr/bin/env python3
"""What PyTorch needs for a decode step of Llama-3-8B's shape: bf16, random weights, one CUDA graph, contiguous KV
cache, library kernels (cuBLAS, scaled_dot_product_attention). RoPE and the embedding are left out, in PyTorch's favour.

    peer_torch.py [--batches 1,16,64,256] [--context 1024] [--device cuda|cpu] [--small]

First a small model's step is compared with the same in float32 and plain formulas. Median of replays; a line per batch."""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass
class Shape:
    layers: int = 32
    embd: int = 4096
    heads: int = 32
    kv_heads: int = 8
    head: int = 128
    ff: int = 14336
    vocab: int = 128256


SMALL = Shape(2, 256, 4, 2, 64, 512, 1000)


class Model:
    def __init__(self, shape, device, dtype=torch.bfloat16):
        def matrix(rows, cols):
            return (torch.randn(rows, cols, device=device) / cols**0.5).to(dtype)
        s = self.shape = shape
        self.layers = [(matrix((s.heads + 2 * s.kv_heads) * s.head, s.embd), matrix(s.embd, s.heads * s.head),
                        matrix(2 * s.ff, s.embd), matrix(s.embd, s.ff)) for _ in range(s.layers)]
        self.out = matrix(s.vocab, s.embd)
        self.norm = torch.ones(s.embd, device=device, dtype=dtype)

    def attend(self, q, k, v):
        """A row's query heads of one key head are rows of one product: no head of the cache is read twice."""
        s = self.shape
        q = q.view(-1, s.kv_heads, s.heads // s.kv_heads, s.head)
        return F.scaled_dot_product_attention(q, k, v).reshape(-1, s.heads * s.head)

    def attend_plainly(self, q, k, v):
        s = self.shape
        q = q.view(-1, s.kv_heads, s.heads // s.kv_heads, s.head)
        return (torch.softmax(q @ k.transpose(-1, -2) / s.head**0.5, -1) @ v).reshape(-1, s.heads * s.head)

    def step(self, x, keys, values, attend=None):
        """Logits of one new token of each sequence, whose keys and values become the last of the cache."""
        s, sizes = self.shape, [n * self.shape.head for n in (self.shape.heads, self.shape.kv_heads, self.shape.kv_heads)]
        for (qkv, o, gate_up, down), k_cache, v_cache in zip(self.layers, keys, values):
            q, k, v = F.linear(F.rms_norm(x, (s.embd,), self.norm, 1e-5), qkv).split(sizes, -1)
            k_cache[:, :, -1] = k.view(-1, s.kv_heads, s.head)
            v_cache[:, :, -1] = v.view(-1, s.kv_heads, s.head)
            x = x + F.linear((attend or self.attend)(q, k_cache, v_cache), o)
            gate, up = F.linear(F.rms_norm(x, (s.embd,), self.norm, 1e-5), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return F.linear(F.rms_norm(x, (s.embd,), self.norm, 1e-5), self.out)

    def caches(self, batch, context, device):
        s = self.shape
        return [[torch.randn(batch, s.kv_heads, context, s.head, device=device, dtype=self.norm.dtype)
                 for _ in range(s.layers)] for _ in range(2)]


def check(device):
    model, exact = Model(SMALL, device), Model(SMALL, device, torch.float32)
    exact.layers = [tuple(w.float() for w in layer) for layer in model.layers]
    exact.out = model.out.float()
    x, (k, v) = torch.randn(3, SMALL.embd, device=device, dtype=torch.bfloat16), model.caches(3, 40, device)
    k32, v32 = [[t.float() for t in c] for c in (k, v)]
    got, want = model.step(x, k, v).float(), exact.step(x.float(), k32, v32, exact.attend_plainly)
    error = ((got - want).norm() / want.norm()).item()
    if not error < 0.03:
        sys.exit(f"peer_torch: a step is {error:.4f} from float32")
    print(f"a step in bf16 is {error:.4f} from float32")


def time_step(model, batch, context, device, replays=20):
    """Median seconds; also checks that the graph gives what the step by itself gives."""
    x = torch.randn(batch, model.shape.embd, device=device, dtype=torch.bfloat16)
    keys, values = model.caches(batch, context, device)

    def step():
        return model.step(x, keys, values).argmax(-1)
    if device == "cpu":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        want = [step() for _ in range(3)][-1]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = step()
    times = []
    for _ in range(replays + 3):
        a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        a.record()
        graph.replay()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) / 1e3)
    if (got != want).sum().item() > batch // 16:
        sys.exit(f"peer_torch: the graph draws other tokens, batch {batch}")
    return statistics.median(times[3:])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--batches", default="1,16,64,256")
    p.add_argument("--context", type=int, default=1024)
    p.add_argument("--device", default="cuda")
    p.add_argument("--small", action="store_true")
    o = p.parse_args()
    torch.manual_seed(1)
    with torch.inference_mode():
        check(o.device)
        model = Model(SMALL if o.small else Shape(), o.device)
        for batch in map(int, o.batches.split(",")):
            t = time_step(model, batch, o.context, o.device)
            print(f"torch    bf16  batch {batch:3} context {o.context:5}  {1e3 * t:9.3f} ms  {batch / t:9.1f} tokens/s", flush=True)
            if o.device != "cpu":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
