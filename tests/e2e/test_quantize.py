"""vramd quantize: exports with every number as it was, types as ggml makes them, files that are continued after any
death, and refusals that say what to do. Bytes against llama-quantize: bench/bench_quantize.py."""

import json
import math
import os
import re
import resource
import signal
import subprocess
import time

import gguf
import numpy as np
import pytest

from harness import BINARY, MODEL, ROOT, SANITIZED, Daemon, vramd
from published import safetensors
from published import write as publish
from tiny_model import write as write_tiny

TEXT = ROOT / "tests" / "golden" / "eval" / "hamlet.txt"


def quantize(*args, code=0, **more):
    r = vramd("quantize", *map(str, args), **more)
    assert r.returncode == code, (args, r.stdout, r.stderr)
    return r


def tensors(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def perplexity(path):
    r = vramd("eval", str(path), "--file", str(TEXT), "--context", "128", "--tokens", "300", "--json")
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)["perplexity"]["value"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_tiny(path, "F32", width=256, ff=512)
    return path


@pytest.mark.parametrize("kind", ["F32", "BF16", "F16", "gptq4z", "awq", "int8"])
def test_a_published_model_is_exported_with_every_number(kind, tmp_path):
    write_tiny(tmp_path / "source.gguf", "F32")
    packed = {} if kind[-2:] in ("32", "16") else {"packed": kind, "group": 32}
    publish(tmp_path / "source.gguf", tmp_path / "Tiny", tmp_path / "same.gguf", "F16" if packed else kind, **packed)
    quantize(tmp_path / "Tiny", tmp_path / "out.gguf")
    ours, theirs = tensors(tmp_path / "out.gguf"), tensors(tmp_path / "same.gguf")
    assert ours.keys() == theirs.keys()
    for name, t in ours.items():
        if t.n_elements > t.shape[0]:
            assert t.tensor_type == theirs[name].tensor_type and (t.data == theirs[name].data).all(), name
        else:
            assert t.tensor_type.name == "F32", name
    assert perplexity(tmp_path / "out.gguf") == perplexity(tmp_path / "same.gguf") == perplexity(tmp_path / "Tiny")


WIDTHS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
          "vocab_size": 80, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "torch_dtype": "float32"}
FAMILIES = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rope_theta": 5e5, "rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 128}},
    "linear": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rope_scaling": {"type": "linear", "factor": 3.0}},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "rope_theta": 1e6, "rope_scaling": {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", "head_dim": 32, "tie_word_embeddings": True},
    "gemma3": {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "head_dim": 32,
               "sliding_window": 64, "sliding_window_pattern": 2, "rope_theta": 1e6, "rope_local_base_freq": 2e4, "query_pre_attn_scalar": 48},
}


def folder_of(family, path):
    """A folder with random matrices and no vocabulary."""
    config = {**WIDTHS, **FAMILIES[family]}
    width, ff, heads, kv = (config[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"))
    dim = config.get("head_dim", width // heads)
    shapes = {"model.embed_tokens": (config["vocab_size"], width), "model.norm": (width,)}
    if not config.get("tie_word_embeddings", family == "gemma3"):
        shapes["lm_head"] = (config["vocab_size"], width)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        shapes |= {at + "input_layernorm": (width,), at + "post_attention_layernorm": (width,), at + "self_attn.q_proj": (heads * dim, width),
                   at + "self_attn.k_proj": (kv * dim, width), at + "self_attn.v_proj": (kv * dim, width),
                   at + "self_attn.o_proj": (width, heads * dim), at + "mlp.gate_proj": (ff, width), at + "mlp.up_proj": (ff, width),
                   at + "mlp.down_proj": (width, ff)}
        if family in ("qwen3", "gemma3"):
            shapes |= {at + "self_attn.q_norm": (dim,), at + "self_attn.k_norm": (dim,)}
        if family == "gemma3":
            shapes |= {at + "pre_feedforward_layernorm": (width,), at + "post_feedforward_layernorm": (width,)}
    rng = np.random.default_rng(3)
    rows = [(f"{name}.weight", shape) for name, shape in shapes.items()]
    if family == "qwen2":
        rows += [(f"{name}.bias", shape[:1]) for name, shape in shapes.items() if name.endswith(("q_proj", "k_proj", "v_proj"))]
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    safetensors(path / "model.safetensors", [(name, rng.standard_normal(shape).astype(np.float32).tobytes(), list(shape), "F32")
                                             for name, shape in rows])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_of_a_config_gets_its_key(family, tmp_path):
    """The program of the file, with rotations, windows and scales, is that of the folder."""
    folder_of(family, tmp_path / "Model")
    quantize(tmp_path / "Model", tmp_path / "Model.gguf")
    of_folder, of_file = (vramd("inspect", str(tmp_path / name), "--program") for name in ("Model", "Model.gguf"))
    assert of_folder.returncode == 0, of_folder.stderr
    assert of_folder.stdout == of_file.stdout and "attention" in of_file.stdout


@pytest.mark.parametrize("name", ("deepseek2", "deepseek2v2", "deepseek3", "gemma4", "gemma4moe", "glm4lite", "glm4moe", "granite4-dense",
                                  "granitehybrid", "granitemoe", "granitemoeshared", "lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe"))
def test_layers_of_several_kinds_and_experts_get_their_keys(name, tmp_path):
    folder, out = ROOT / "tests" / "golden" / "families" / name, tmp_path / "model.gguf"
    quantize(folder, out, "--type", "F16")
    of_folder, of_file = (vramd("inspect", str(path), "--program") for path in (folder, out))
    assert of_folder.returncode == 0, of_folder.stderr
    assert of_folder.stdout == of_file.stdout and "attention" in of_file.stdout


@pytest.mark.parametrize("name", ("lfm2", "nemotron_h"))
def test_kernels_of_convolutions_stay_as_they_are(name, tmp_path):
    quantize(ROOT / "tests" / "golden" / "families" / f"{name}.gguf", tmp_path / "model.gguf", "--type", "Q8_0")
    kernels = [t for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors if "conv" in t.name and t.name.endswith("weight") and len(t.shape) > 1
               and "proj" not in t.name]
    assert kernels and all(t.tensor_type == gguf.GGMLQuantizationType.F32 for t in kernels), [(t.name, t.tensor_type) for t in kernels]


def test_yarns_factor_has_the_key_that_readers_multiply_by_the_formula(tmp_path):
    quantize(ROOT / "tests" / "golden" / "families" / "ministral3", tmp_path / "model.gguf")
    file = gguf.GGUFReader(tmp_path / "model.gguf")
    factor, relative = (file.fields[f"mistral3.rope.scaling.{key}"].contents() for key in ("factor", "attn_factor"))
    assert abs(relative * (0.1 * math.log(factor) + 1) - 1) < 1e-6  # both mscales of its config are 1


FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q5_0": 8, "Q2_K": 10, "Q4_K": 14, "IQ4_XS": 30, "MXFP4": 38}


@pytest.mark.parametrize("type_name", FILE_TYPES)
def test_a_type_is_written_as_planned(type_name, tiny, tmp_path):
    planned = json.loads(quantize(tiny, tmp_path / "out.gguf", "--type", type_name.lower(), "--json").stdout)
    assert planned["done"] and planned["file_bytes"] == os.path.getsize(tmp_path / "out.gguf")
    file = gguf.GGUFReader(tmp_path / "out.gguf")
    assert file.fields["general.file_type"].contents() == FILE_TYPES[type_name]
    assert file.fields["general.quantization_version"].contents() == 2
    head = type_name if type_name in ("F16", "Q8_0") else "Q6_K"
    for t, want in zip(file.tensors, planned["tensors"], strict=True):
        assert (t.name, t.tensor_type.name, t.n_bytes) == (want["name"], want["type"], want["bytes"])
        matrix = t.name.startswith("blk") and "norm" not in t.name or t.name == "token_embd.weight"
        assert want["type"] == (type_name if matrix else head if t.name == "output.weight" else "F32"), t.name
    assert vramd("inspect", str(tmp_path / "out.gguf"), "--program").returncode == 0


def test_a_real_model_from_float_numbers_answers_as_they_do(tmp_path):
    quantize(MODEL, tmp_path / "f32.gguf", "--type", "F32")
    quantize(tmp_path / "f32.gguf", tmp_path / "q8.gguf", "--type", "Q8_0")
    quantize(tmp_path / "f32.gguf", tmp_path / "again.gguf", "--type", "Q4_1", "--pure")
    answers = []
    for path in (MODEL, tmp_path / "f32.gguf", tmp_path / "q8.gguf", tmp_path / "again.gguf"):
        d = Daemon("--model", str(path), "--max-model-len", "512", "--max-num-seqs", "4")
        try:
            answers.append(d.choice("The capital of France is", max_tokens=16, temperature=0)["text"])
        finally:
            d.stop()
    assert answers[0] == answers[1] == answers[2] and all(a.startswith(" Paris.") for a in answers), answers


def test_fp8_is_exported_as_float32_or_not_at_all(tmp_path):
    write_tiny(tmp_path / "source.gguf", "F32")
    publish(tmp_path / "source.gguf", tmp_path / "Tiny", tmp_path / "same.gguf", "F32", packed="fp8_block", group=32)
    r = quantize(tmp_path / "Tiny", tmp_path / "out.gguf", code=6)
    assert "GGUF has no type for the F8" in r.stderr and "--type F32" in r.stderr
    quantize(tmp_path / "Tiny", tmp_path / "out.gguf", "--type", "F32")
    theirs = tensors(tmp_path / "same.gguf")
    for name, t in tensors(tmp_path / "out.gguf").items():
        assert t.tensor_type.name == "F32"
        assert (t.data.ravel() == gguf.dequantize(theirs[name].data, theirs[name].tensor_type).ravel()).all(), name


def test_it_continues_after_any_death(tmp_path):
    quantize(MODEL, tmp_path / "whole.gguf", "--type", "Q3_K", "--requantize")
    whole = (tmp_path / "whole.gguf").read_bytes()
    command = [BINARY, "quantize", MODEL, str(tmp_path / "out.gguf"), "--type", "Q3_K", "--requantize", "--threads", "2", "--json"]
    kills = 0
    for round in range(60):  # Q3_K: seconds of work, so that deaths come before the end
        p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            stdout, stderr = p.communicate(timeout=0.3 + 0.1 * round)
            break
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGINT if round == 2 else signal.SIGKILL)
            _, stderr = p.communicate()
            assert round != 2 or p.returncode == 0 or "the same command continues" in stderr
            assert not (tmp_path / "out.gguf").exists() or round == 2
            kills += 1
            if round == 1:  # what a hash does not confirm is written again
                part = tmp_path / "out.gguf.part"
                if part.exists() and part.stat().st_size:
                    with open(part, "r+b") as f:
                        f.seek(part.stat().st_size // 50)
                        f.write(b"\xff" * 4096)
    assert p.returncode == 0, stderr
    result = json.loads(stdout)
    assert kills and result["resumed_bytes"] > 0
    assert (tmp_path / "out.gguf").read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == ["out.gguf", "whole.gguf"]


def test_what_is_unfinished_belongs_to_its_model_and_types(tiny, tmp_path):
    out = tmp_path / "out.gguf"
    (tmp_path / "out.gguf.part").write_bytes(b"\xff" * (1 << 22))
    (tmp_path / "out.gguf.part.journal").write_text("vramd-quantize 1 " + "0" * 32 + "\n0 00000000\n1 zz\n999999999999 00000000\n3")
    r = json.loads(quantize(tiny, out, "--type", "Q4_0", "--json").stdout)
    assert r["resumed_bytes"] == 0
    quantize(tiny, tmp_path / "clean.gguf", "--type", "Q4_0", "--threads", "1")
    assert out.read_bytes() == (tmp_path / "clean.gguf").read_bytes()


def test_a_limit_of_file_sizes_is_named(tiny, tmp_path):
    r = quantize(tiny, tmp_path / "out.gguf", code=4, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)))
    assert "File too large" in r.stderr and "ulimit -f" in r.stderr and not os.listdir(tmp_path)


@pytest.mark.skipif(subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0, reason="no mount namespace of its own")
def test_a_full_disk_is_named(tiny, tmp_path):
    script = 'mount -t tmpfs -o size=1m tmpfs "$0"; "$@"; echo $?; ls "$0"; mount -o remount,size=64m "$0"; "$@" && ls "$0"'
    command = [str(tmp_path), BINARY, "quantize", str(tiny), str(tmp_path / "out.gguf"), "--type", "Q8_0"]
    r = subprocess.run(["unshare", "-rm", "sh", "-c", script, *command], text=True, capture_output=True, timeout=60)
    assert "more are needed on this disk" in r.stderr and "on another disk" in r.stderr, r
    assert r.returncode == 0 and r.stdout.splitlines()[-1] == "out.gguf" and "\n4\n" in r.stdout, r.stdout


def test_refusals_say_what_to_do(tiny, tmp_path):
    out = tmp_path / "out.gguf"
    out.write_text("mine")
    r = quantize(tiny, out, "--type", "Q4_0", code=2)
    assert "out.gguf exists" in r.stderr and "--force" in r.stderr and out.read_text() == "mine"
    quantize(tiny, out, "--type", "Q4_0", "--force")
    r = quantize(out, tmp_path / "twice.gguf", "--type", "Q4_K", code=2)
    assert "lose twice" in r.stderr and "--requantize" in r.stderr
    quantize(out, tmp_path / "twice.gguf", "--type", "Q4_K", "--requantize")
    quantize(out, tmp_path / "f32.gguf", "--type", "F32")  # loses nothing
    for args, code, words in (([tiny, tmp_path / "no" / "x.gguf"], 4, "no such folder"), ([tmp_path / "none", out], 2, "exists"),
                              ([tmp_path / "none", tmp_path / "x"], 3, "none"), ([tiny], 2, "no file to write is named"), ([], 2, "no model is named"),
                              ([tiny, tmp_path / "x", "--type", "Q9"], 2, "no type that is written"),
                              ([tiny, tmp_path / "x", "--type", "IQ2_XXS"], 2, "no type that is written"),
                              ([tiny, tmp_path / "x", "--threads", "0"], 2, "--threads"), ([tiny, tmp_path / "x", "--odd"], 2, "not understood: --odd"),
                              ([tiny, tmp_path], 2, "is a folder"), ([tiny, tmp_path / "x", "y"], 2, "not understood: y")):
        r = quantize(*args, code=code)
        assert words in r.stderr and r.stderr.startswith("vramd quantize: "), (args, r.stderr)
    assert sorted(os.listdir(tmp_path)) == ["f32.gguf", "out.gguf", "twice.gguf"]


def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path):
    write_tiny(tmp_path / "m.gguf", "F32")
    t = tensors(tmp_path / "m.gguf")["blk.1.ffn_down.weight"]
    data = bytearray((tmp_path / "m.gguf").read_bytes())
    at = t.data_offset + 4 * 100
    data[at:at + 4] = b"\x00\x00\xc0\x7f"
    (tmp_path / "m.gguf").write_bytes(data)
    r = quantize(tmp_path / "m.gguf", tmp_path / "out.gguf", "--type", "Q8_0", code=6)
    assert "blk.1.ffn_down.weight has numbers that are not finite" in r.stderr
    data[at:at + 4] = b"\x00\x00\x80\x7a"  # 3e35
    (tmp_path / "m.gguf").write_bytes(data)
    r = quantize(tmp_path / "m.gguf", tmp_path / "out.gguf", "--type", "Q8_0", code=6)
    assert "too large for its new type" in r.stderr and "BF16 or F32" in r.stderr
    quantize(tmp_path / "m.gguf", tmp_path / "out.gguf", "--type", "BF16")


def test_the_plan_comes_first_and_holds(tiny, tmp_path):
    out = tmp_path / "out.gguf"
    r = quantize(tiny, out, "--type", "Q4_K", "--dry-run")
    assert re.search(r"Q4_K +\d+ tensors", r.stdout) and "memory" in r.stdout and not os.listdir(tmp_path)
    r = quantize(tiny, out, "--type", "Q4_K")
    assert "\r" not in r.stderr and r.stdout.splitlines()[-1].startswith(f"{out}: ")
    planned = re.search(r"file +([\d,]+) bytes", r.stdout)[1]
    assert int(planned.replace(",", "")) == out.stat().st_size


@pytest.mark.skipif(SANITIZED, reason="sanitizers have an allocator of their own")
def test_memory_stays_within_the_plan(tmp_path):
    def peak(*args):
        p = subprocess.Popen([BINARY, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        text = p.stdout.read()
        _, code, usage = os.wait4(p.pid, 0)
        p.returncode = code
        assert code == 0
        return text, usage.ru_maxrss * 1024

    base = peak("version")[1]
    for n in (1, 4):
        text, most = peak("quantize", MODEL, tmp_path / f"{n}.gguf", "--type", "F16", "--requantize", "--threads", n, "--json")
        assert most - base < json.loads(text)["memory_bytes"] + (4 << 20), (n, most, base)
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "4.gguf").read_bytes()


def test_a_budget_of_bytes_is_met_by_the_table(tiny, tmp_path):
    """The file's bytes and the table's sums, over budgets: never above, the loss never larger with more."""
    out, table, losses = tmp_path / "out.gguf", tmp_path / "out.gguf.sensitivity.json", []
    r = quantize(tiny, out, "--fit", "1MB", code=7)
    least = int(re.search(r"takes is ([\d,]+) bytes", r.stderr)[1].replace(",", ""))
    assert not os.listdir(tmp_path)
    for budget in (least, least + 100_000, least + 500_000, least + 2_000_000, 1 << 30):
        r = json.loads(quantize(tiny, out, "--fit", budget, "--json", "--force").stdout)
        t = json.loads(table.read_text())
        assert out.stat().st_size == r["file_bytes"] == t["file_bytes"] <= budget == t["budget"]
        types = {x["name"]: x["type"] for x in r["tensors"]}
        chosen = [next(o for o in x["options"] if o["type"] == x["type"]) for x in t["tensors"]]
        assert all(types[x["name"]] == x["type"] for x in t["tensors"])
        assert sum(o["loss"] for o in chosen) == pytest.approx(t["loss"], rel=1e-4)
        losses.append(t["loss"])
    assert set(types.values()) == {"F32"} and losses[-1] == 0  # all as it was
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[1] > losses[2]
    quantize(tiny, tmp_path / "least.gguf", "--fit", least - 1, code=7)
    for args, words in ((["--fit", "1GB", "--type", "Q4_0"], "exclude it"), (["--fit", "0"], "no number of bytes"), (["--fit", "x"], "no number of bytes")):
        assert words in quantize(tiny, tmp_path / "x", *args, code=2).stderr
