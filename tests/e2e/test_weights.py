"""Every quantised weight type in one file made of the real model: layer after layer takes the next one."""

import re

import pytest
from gguf import GGMLQuantizationType as Q

from harness import MODEL, vramd
from requantise import dequantise, requantise

TYPES = [Q.Q5_0, Q.Q4_0, Q.Q4_1, Q.Q5_1, Q.Q8_0, Q.IQ4_NL, Q.Q4_K, Q.Q6_K, Q.Q5_K, Q.Q3_K, Q.Q2_K, Q.IQ4_XS, Q.NVFP4,
         Q.TQ1_0, Q.TQ2_0, Q.IQ3_S, Q.IQ3_XXS, Q.IQ2_S, Q.IQ2_XS, Q.IQ2_XXS, Q.IQ1_M, Q.IQ1_S, Q.MXFP4]
PROMPT = "Once upon a time, in a small village,"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    f = tmp_path_factory.mktemp("weights") / "mixed.gguf"
    return f, requantise(MODEL, f, TYPES, n_layers=len(TYPES))


@pytest.fixture
def mixed(made):
    return made[0]


def said(file, *options):
    r = vramd("generate", "--model", str(file), "--max-tokens", "24", "--temperature", "0", "--max-model-len", "64",
              *options, PROMPT)
    assert r.returncode == 0, r.stderr
    return r.stdout


def test_inspect_and_plan_count_every_type(made):
    """The file's bytes by type; packing adds none where rows are whole strips of 16."""
    mixed, matrices = made
    assert {t for t, _ in matrices} == set(TYPES)
    totals = vramd("inspect", str(mixed)).stdout.split("totals")[1]
    plan = vramd("plan", str(mixed), "--details", "--max-model-len", "64").stdout
    planned = re.findall(r"^weights +exact +([\d,]+)  .* (\w+)$", plan, re.M)
    for t in TYPES:
        mine = [n for of, n in matrices if of == t]
        assert re.search(rf"^ *{t.name} +{len(mine)} tensors +{sum(mine):,} bytes", totals, re.M), totals
        assert sum(int(n.replace(",", "")) for n, name in planned if name == t.name) == sum(mine), plan


def test_float_activations_say_what_gguf_s_values_say(mixed, tmp_path):
    """The same numbers by another reader, stored as F32, give the same text: sums have one order for all types."""
    f = tmp_path / "f32.gguf"
    dequantise(mixed, f)
    assert said(mixed, "--activation-dtype", "f32") == said(f, "--activation-dtype", "f32") != ""


@pytest.mark.parametrize("activations", ["int8", "bf16"])
def test_activations_give_one_text_on_every_instruction_set(mixed, activations):
    flags = open("/proc/cpuinfo").read()
    isas = ["plain"] + ["avx2"] * ("avx2" in flags) + ["avxvnni"] * ("avx_vnni" in flags) + ["avx512"] * ("avx512_vnni" in flags) + \
        ["amx"] * ("avx512_bf16" in flags and "amx_bf16" in flags and "amx_tile" in flags)
    texts = {said(mixed, "--cpu-isa", isa, "--activation-dtype", activations) for isa in isas}
    assert len(texts) == 1 and texts != {""}


def test_quantize_reads_types_that_it_does_not_write(tmp_path):
    """Books and powers of three as F32 are the same numbers; NVFP4, whose numbers need another tensor, is refused by name."""
    few, f32, nvfp4 = (tmp_path / f"{n}.gguf" for n in ("few", "f32", "nvfp4"))
    requantise(MODEL, few, [Q.IQ2_S, Q.TQ1_0], n_layers=2)
    r = vramd("quantize", str(few), str(f32), "--type", "F32", "--requantize")
    assert r.returncode == 0, r.stderr
    assert said(few, "--activation-dtype", "f32") == said(f32, "--activation-dtype", "f32") != ""
    requantise(MODEL, nvfp4, [Q.NVFP4], n_layers=1)
    r = vramd("quantize", str(nvfp4), str(tmp_path / "none.gguf"), "--type", "F32", "--requantize")
    assert r.returncode != 0 and "the type NVFP4 of " in r.stderr, r.stderr
