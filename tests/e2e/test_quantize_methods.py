"""vramd quantize --method: importance matrices, GPTQ and scales of inputs on a tiny model. Losses on real models:
bench/bench_quantize_methods.py."""

import json
import re

import gguf
import numpy as np
import pytest

from harness import ROOT, vramd
from tiny_model import write as write_tiny

TEXT = ROOT / "tests" / "golden" / "eval" / "hamlet.txt"
SMALL = ("--calibrate-tokens", "1024")


def quantize(*args, code=0):
    r = vramd("quantize", *map(str, args))
    assert r.returncode == code, (args, r.stdout, r.stderr)
    return r


def uneven_inputs(path):
    """As in trained models, some inputs of a matrix are larger than others by far: that is what an importance matrix knows."""
    rng = np.random.default_rng(1)
    for t in gguf.GGUFReader(path, "r+").tensors:
        if t.name.endswith(("attn_norm.weight", "ffn_norm.weight")):
            t.data[:] *= np.exp(rng.standard_normal(t.data.shape).astype(np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("methods")
    write_tiny(path / "tiny.gguf", "F32", width=256, ff=512)
    uneven_inputs(path / "tiny.gguf")
    (path / "a.txt").write_text("\n".join((ROOT / "docs" / f"{n}.md").read_text() for n in ("eval", "scheduler", "memory")))
    (path / "b.c").write_text("\n".join((ROOT / "scheduler" / f"{n}.c").read_text() for n in ("blocks", "cache", "plan")))
    run("eval", path / "tiny.gguf", "--file", TEXT, "--context", "256", "--tokens", "1500", "--activation-dtype", "f32",
        "--write-reference", path / "f.ref")
    return path


def run(*args):
    r = vramd(*map(str, args))
    assert r.returncode == 0, (args, r.stdout, r.stderr)
    return r.stdout


def kl(folder, path):
    out = run("eval", path, "--file", TEXT, "--activation-dtype", "f32", "--other-weights", "--reference", folder / "f.ref", "--json")
    return json.loads(out)["kl"]["value"]


def made(folder, name, *args):
    path = folder / f"{name}.gguf"
    quantize(folder / "tiny.gguf", path, "--force", *args)
    return path


def calibrated(folder, name, *args):
    return made(folder, name, "--calibrate", folder / "a.txt", "--calibrate", folder / "b.c", *SMALL, "--no-check", *args)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K"])
def test_each_method_loses_less_than_rounding(folder, kind):
    rtn = kl(folder, made(folder, "rtn", "--type", kind))
    imatrix = kl(folder, calibrated(folder, "imatrix", "--type", kind, "--method", "imatrix"))
    gptq = kl(folder, calibrated(folder, "gptq", "--type", kind, "--method", "gptq"))
    assert imatrix < 0.97 * rtn and gptq < 0.95 * imatrix, (rtn, imatrix, gptq)


def test_a_mixture_of_types_weighs_inputs_by_the_text(folder):
    plain = made(folder, "mixed", "--fit", 2400000)
    weighed = calibrated(folder, "mixed-imatrix", "--fit", 2400000, "--method", "imatrix")
    tables = [json.loads((p.parent / (p.name + ".sensitivity.json")).read_text()) for p in (plain, weighed)]
    assert [t["importance"] for t in tables] == [False, True]
    for path in (plain, weighed):
        assert path.stat().st_size <= 2400000
    of = [{t["name"]: {o["type"]: o["loss"] for o in t["options"]} for t in table["tensors"]} for table in tables]
    for name in of[0]:
        assert (of[0][name] != of[1][name]) == name.startswith("blk."), name  # no sums of what the head reads
    searched = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
    for name in of[0]:  # an input that is huge hides no other: never below what is lost where all count alike
        assert all(of[1][name][t] >= 0.98 * of[0][name][t] for t in searched), name


def test_the_plan_counts_the_model_on_the_text(folder):
    options = ("--type", "Q4_K", "--dry-run", "--json", "--force")
    plain, gptq = (json.loads(quantize(folder / "tiny.gguf", folder / "planned.gguf", *options, *more).stdout)["memory_bytes"]
                   for more in ((), ("--method", "gptq", "--calibrate", folder / "a.txt", *SMALL)))
    widths = 2 * (3 * 256 + 512)  # of q, attn_output, gate and down of two layers; 4 n^2 bytes for n inputs at least
    assert gptq > plain + (folder / "tiny.gguf").stat().st_size // 2 + 4 * 256 * widths


def test_scales_change_the_weights_and_not_what_the_model_computes(folder):
    for method in ("awq", "smooth"):
        path = calibrated(folder, method, "--type", "Q8_0", "--method", method)
        old, new = ({t.name: t for t in gguf.GGUFReader(p).tensors} for p in (folder / "tiny.gguf", path))
        changed = np.array(new["blk.0.attn_norm.weight"].data) / np.array(old["blk.0.attn_norm.weight"].data)
        assert method == "awq" or np.ptp(changed) > 0.1
        exact = calibrated(folder, method + "-f16", "--type", "F16", "--method", method)
        assert kl(folder, exact) < 1e-4
        assert kl(folder, path) < 0.02


def test_less_memory_for_moments_takes_more_passes_and_gives_the_same_file(folder):
    one = calibrated(folder, "one", "--type", "Q4_0", "--method", "gptq").read_bytes()
    assert calibrated(folder, "several", "--type", "Q4_0", "--method", "gptq", "--max-h", "1200K").read_bytes() == one
    assert calibrated(folder, "threads", "--type", "Q4_0", "--method", "gptq", "--threads", "1").read_bytes() == one


def test_an_importance_matrix_is_written_and_read(folder):
    path = folder / "i.gguf"
    direct = calibrated(folder, "direct", "--type", "Q4_K", "--method", "imatrix", "--write-imatrix", path)
    assert made(folder, "read", "--type", "Q4_K", "--method", "imatrix", "--imatrix", path).read_bytes() == direct.read_bytes()
    reader = gguf.GGUFReader(path)
    sums = {t.name: t for t in reader.tensors}
    assert sums["blk.1.ffn_down.weight.in_sum2"].shape.tolist() == [512, 1]
    assert sums["blk.1.ffn_down.weight.counts"].data.reshape(-1).tolist() == [1024]
    assert reader.fields["imatrix.datasets"].contents() == ["a.txt", "b.c"]


def test_held_out_parts_are_compared_with_rounding(folder):
    r = quantize(folder / "tiny.gguf", folder / "c.gguf", "--force", "--type", "Q4_0", "--method", "gptq", "--calibrate", folder / "a.txt",
                 "--calibrate", folder / "b.c", "--calibrate-tokens", "2048")
    rows = re.findall(r"^(a\.txt|b\.c) +(\d+) +(\S+) +(\S+)", r.stderr, re.M)
    assert [x[0] for x in rows] == ["a.txt", "b.c"] and all(float(m) < float(rtn) for _, _, rtn, m in rows), r.stderr
    assert not list(folder.glob("c.gguf.*"))


def test_without_a_text_built_in_ones_are_taken(folder):
    r = quantize(folder / "tiny.gguf", folder / "d.gguf", "--force", "--type", "Q4_0", "--method", "imatrix", *SMALL)
    assert re.findall(r"^(\w+) +\d+ ", r.stderr, re.M) == ["prose", "play", "code", "chinese"], r.stderr


@pytest.mark.parametrize("args,message", [
    (("--method", "gptz"), "gptz"),
    (("--method", "awq+smooth"), "the same inputs"),
    (("--calibrate", "a.txt"), "no text"),
    (("--method", "gptq", "--imatrix", "i.gguf"), "--imatrix"),
    (("--method", "gptq", "--max-h", "0"), "--max-h"),
    (("--method", "gptq", "--calibrate", "missing.txt"), "missing.txt"),
])
def test_what_cannot_be_meant_is_refused(folder, args, message):
    r = vramd("quantize", str(folder / "tiny.gguf"), str(folder / "x.gguf"), "--type", "Q4_0", *args)
    assert r.returncode in (2, 3) and message in r.stderr, r.stderr
    assert not (folder / "x.gguf").exists()
