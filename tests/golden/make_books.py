#!/usr/bin/env python3
"""Writes model/books.c: the books of the weight types IQ1, IQ2 and IQ3, from the reference of the format, PyPI's
`gguf` (made with 0.19.0), which has them as text.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install gguf==0.19.0 numpy
    /tmp/v/bin/python tests/golden/make_books.py model/books.c && make format

An entry stands for 8 numbers (IQ1, IQ2) or 4 (IQ3), each by its place among the few values that a type has."""

import sys

import numpy as np
from gguf import quants as q

BOOKS = [("iq1", q.IQ1_S), ("iq2_xxs", q.IQ2_XXS), ("iq2_xs", q.IQ2_XS), ("iq2_s", q.IQ2_S), ("iq3_xxs", q.IQ3_XXS),
         ("iq3_s", q.IQ3_S)]

with open(sys.argv[1], "w") as out:
    out.write("/* The books of IQ1, IQ2 and IQ3; written by tests/golden/make_books.py. */\n#include \"model/books.h\"\n")
    for name, t in BOOKS:
        t.init_grid()
        grid = t.grid.reshape(t.grid_shape)
        place = np.searchsorted(np.array(t.grid_map), grid).astype(np.uint32)
        assert (np.array(t.grid_map)[place] == grid).all()
        entry = np.zeros(len(grid), np.uint32)
        for i in range(grid.shape[1]):
            entry |= place[:, i] << np.uint32(8 * (i % 4) + 4 * (i // 4))
        out.write(f"\nconst uint32_t book_{name}[{len(entry)}] = {{\n")
        out.write(", ".join(f"0x{e:08x}" for e in entry))
        out.write("};\n")
