#!/usr/bin/env python3
"""Fails where a comment of the C, C++ and CUDA sources, or docs/architecture.md or CONTRIBUTING.md,
names something that is not in the tree: a call `foo()`, a word in snake_case, a file `x.c`. Names of
other projects, which comments cite, stand in EXTERNAL, those of formulas and of usage lines in FORMULAS."""

import re
import subprocess
import sys

EXTERNAL = set("""gnutls_handshake_set_max_packet_length 
google-research/bert tokenization.py llama.cpp ggml-common.h ggml-quants.c llama-arch.cpp llama-quant.cpp llama-vocab.cpp gemma3.cpp block_q4_0 block_iq4_xs
kvalues_iq4nl rope_yarn quants.py modeling_rope_utils.py modeling_deepseek_v2.py modeling_deepseek_v3.py deepseek2.cpp modeling_glm4.py modeling_glm4_moe.py modeling_gpt_oss.py modeling_granite.py modeling_ministral3.py modeling_olmo3.py
modeling_smollm3.py modeling_bert.py tokenization_bert.py convert_slow_tokenizer.py SentenceTransformer.py models/Pooling.py encoder.py o200k_base tiny_aya Q4_2 USER_DEFINED White_Space
curl_easy_init curl_global_init curl_multi_socket_action sd_listen_fds sd_notify sd_watchdog_enabled nvml.h nvmlMemory_t
splitmix64.c test_siphash128_1_3 vectors_sip128 END_WITH_ERROR
""".split())

FORMULAS = set("W_gate W_up d_w m_w s_a rms_norm name_runs smem_bytes PIECE_BYTES VRAMD_KV_CACHE_DTYPE".split())

# The examples of CONTRIBUTING.md.
EXAMPLES = set("""noun_verb prefix_match n_x newmodel.c newmodel_record no_factors max_waiting_age vramd_waiting_expired_total
n_expired every_option""".split())

SOURCE = (".c", ".h", ".cu", ".cuh", ".cpp")
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
LITERAL = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
COMMENT = re.compile(LITERAL + r"|//[^\n]*|/\*.*?\*/", re.S)
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NAMED = re.compile(r"(?<![\w./*<{-])(?:[\w.-]+/)*[\w-]+\.(?:c|h|cu|cuh|cpp|py|sh)\b(?![\w*])|(?<![\w.$/*{<-])[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+\b(?![\w*.{}/]|-[a-z])|\b[a-z]\w+(?=\(\))")


def split(text):
    """The comments, as (offset, text), and the rest of a source."""
    comments, code, at = [], [], 0
    for m in COMMENT.finditer(text):
        if m[0][0] == "/":
            code.append(text[at:m.start()])
            comments.append((m.start(), m[0]))
            at = m.end()
    return comments, " ".join(code) + " " + text[at:]


def main():
    files = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], text=True).split("\n")
    known, names, comments = EXTERNAL | FORMULAS | EXAMPLES, set(), []
    for path in filter(None, files):
        names.add(path.rsplit("/", 1)[-1])
        source = path.endswith(SOURCE)
        if not source and not path.endswith((".py", ".sh", ".mk", "Makefile", ".md")):
            continue
        try:
            text = open(path, encoding="utf-8").read()
        except FileNotFoundError:
            continue
        code = text
        if source:
            found, code = split(text)
            comments += [(path, text, at, c) for at, c in found]
        if path in PAGES:
            comments.append((path, text, 0, text))
        elif not path.endswith(".md"):
            known.update(WORD.findall(code))
    known |= {a + "_" + b for a in ("DT", "OP") for b in known}  # made by X-macros
    bad = 0
    for path, text, at, comment in comments:
        for m in NAMED.finditer(comment):
            name = m[0]
            if name in known or name.rsplit("/", 1)[-1] in names | known:
                continue
            print(f"names: {path}:{text.count(chr(10), 0, at + m.start()) + 1}: no {name} in the tree")
            bad += 1
    return 1 if bad else 0


sys.exit(main())
