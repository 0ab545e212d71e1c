#!/usr/bin/env python3
"""Writes text/jinja/jinja_unicode.h: what Python's str.upper, lower, title, isspace and isprintable know.
The table in the tree is that of Python 3.11 (Unicode 14).

    tools/make_unicode.py > text/jinja/jinja_unicode.h
"""
import unicodedata

CHARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(test):
    out = []
    for c in CHARS:
        if test(chr(c)):
            if out and out[-1][1] == c - 1:
                out[-1][1] = c
            else:
                out.append([c, c])
    return out


def case_map(change):
    """Rows (first, last, stride, delta), and those that become several characters."""
    rows, several = [], []
    for c in CHARS:
        to = change(chr(c))
        if to == chr(c):
            continue
        if len(to) > 1:
            several.append((c, [ord(x) for x in to]))
            continue
        delta = ord(to) - c
        last = rows[-1] if rows else None
        if last and last[3] == delta and last[0] == last[1] and c - last[1] in (1, 2):
            last[1:3] = [c, c - last[1]]
        elif last and last[3] == delta and c - last[1] == last[2]:
            last[1] = c
        else:
            rows.append([c, c, 1, delta])
    return rows, several


def table(kind, name, cells):
    print(f"static const {kind} {name}[] = {{")
    line = "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > 96:
            print(line)
            line = "   "
        line += f" {cell},"
    print(line[:-1] + "};")


print(f"/* Unicode {unicodedata.unidata_version}, as Python has it. Written by tools/make_unicode.py. */")
print("#ifndef VRAMD_TEXT_JINJA_UNICODE_H\n#define VRAMD_TEXT_JINJA_UNICODE_H\n")
print("#include <stdint.h>\n")
print("typedef struct case_row {\n    uint32_t first, last;\n    int32_t stride, delta;\n} case_row;")
print("typedef struct case_several {\n    uint32_t from, to[3];\n} case_several;")
print("typedef struct char_range {\n    uint32_t first, last;\n} char_range;\n")
print("/* clang-format off */")
for name, change in (("upper", str.upper), ("lower", str.lower), ("title", str.title)):
    rows, several = case_map(change)
    table("case_row", name + "_rows", ("{%#x, %#x, %d, %d}" % tuple(r) for r in rows))
    table("case_several", name + "_several",
          ("{%#x, {%s}}" % (c, ", ".join("%#x" % x for x in to)) for c, to in several))
table("char_range", "space_ranges", ("{%#x, %#x}" % tuple(r) for r in ranges(str.isspace)))
table("char_range", "unprintable_ranges",
      ("{%#x, %#x}" % tuple(r) for r in ranges(lambda c: not c.isprintable())))
print("/* clang-format on */\n\n#endif")
