#!/usr/bin/env python3
"""Codes that GPTQ chooses for a small layer, by the paper's own steps in float64 (Frantar et al., 2023, algorithm 1:
the upper Cholesky factor of the inverse, one column after the other), printed as C for tests/quant/test_gptq.c.

    make_gptq.py > tests/quant/gptq_golden.h
"""
import numpy as np

INPUTS, ROWS, TOKENS, GROUP = 96, 6, 200, 32


def numbers(seed, n):
    """The same in test_gptq.c: a linear congruential generator, its upper bits as -0.5..0.5."""
    out, x = [], seed
    for _ in range(n):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append((x >> 40) / 2**24 - 0.5)
    return np.array(out)


w = numbers(1, ROWS * INPUTS).reshape(ROWS, INPUTS).astype(np.float32).astype(np.float64)
x = numbers(2, TOKENS * INPUTS).reshape(TOKENS, INPUTS).astype(np.float32).astype(np.float64)
x[:, 1:] += 0.75 * x[:, :-1]  # neighbours depend on each other
x *= 1 + np.arange(INPUTS) % 5
x = x.astype(np.float32).astype(np.float64)
h = x.T @ x

v = w.reshape(ROWS, -1, GROUP)
d = ((v.max(2) - v.min(2)) / 15).astype(np.float16).astype(np.float64)
m = v.min(2).astype(np.float16).astype(np.float64)


def gptq(order):
    hp = h[order][:, order] + 0.01 * np.diag(h).mean() * np.eye(INPUTS)
    u = np.linalg.cholesky(np.linalg.inv(hp)).T  # inverse = u^T u
    a = w[:, order].copy()
    codes = np.zeros((ROWS, INPUTS), int)
    for c in range(INPUTS):
        g = order[c] // GROUP
        codes[:, order[c]] = np.clip(np.rint((a[:, c] - m[:, g]) / d[:, g]), 0, 15)
        e = (a[:, c] - (codes[:, order[c]] * d[:, g] + m[:, g])) / u[c, c]
        a[:, c:] -= e[:, None] * u[c, c:][None]
    return codes


def show(name, codes):
    text = "".join("%x" % c for c in codes.reshape(-1))
    print(f"static const char {name}[] =")
    print("\n".join(f'    "{text[i:i + 80]}"' for i in range(0, len(text), 80)) + ";")


print("/* Made by tests/golden/make_gptq.py. */")
show("golden_act_order", gptq(np.argsort(-np.diag(h), kind="stable")))
show("golden_natural", gptq(np.arange(INPUTS)))
q = np.repeat(np.clip(np.rint((v - m[:, :, None]) / d[:, :, None]), 0, 15) * d[:, :, None] + m[:, :, None], 1, 0).reshape(ROWS, -1)
print(f"/* tr(E H E^T) by rounding */\nstatic const double golden_rounded = {np.einsum('ri,ij,rj->', q - w, h, q - w):.9g};")
