"""Models as they are published, a folder of safetensors with config.json and tokenizer.json: the same
tokens and the same bits as the GGUF file of the same numbers, from every command."""

import json
import re
import struct

import pytest

from harness import Daemon, ROOT, vramd
from published import FP8, KINDS, write as publish
from tiny_model import write as write_tiny

TEXT = ROOT / "tests" / "golden" / "eval" / "hamlet.txt"
ODD = "Hello   world 12345 na\u00efve <|im_start|> \u00e9t\u00e9\n\n x\u00a0\u4f60\u597d \U0001f600 don't"


@pytest.fixture(scope="module", params=["BF16", "F16", "F32"])
def both(request, tmp_path_factory):
    """The folder, in three shards, and the GGUF file."""
    d = tmp_path_factory.mktemp("published")
    write_tiny(d / "source.gguf", "F32")
    publish(d / "source.gguf", d / "Tiny", d / "Tiny.gguf", request.param, shards=3)
    return d / "Tiny", d / "Tiny.gguf"


def test_tokens_are_those_of_the_gguf_file(both):
    folder, file = both
    of_folder, of_file = (vramd("tokenize", str(p), input=ODD) for p in both)
    assert of_folder.returncode == 0, of_folder.stderr
    assert of_folder.stdout == of_file.stdout and len(of_folder.stdout) > 20


def test_every_bit_is_that_of_the_gguf_file(both):
    def perplexity(path):
        r = vramd("eval", str(path), "--file", str(TEXT), "--context", "128", "--tokens", "400", "--json")
        assert r.returncode == 0, r.stderr
        return json.loads(r.stdout)["perplexity"]

    folder, file = both
    assert perplexity(folder) == perplexity(file)


def test_the_folder_is_served_and_its_plan_is_the_ledger(both):
    answers = []
    for path in (str(both[0]) + "/", str(both[1])):
        options = ["--max-model-len", "256", "--max-num-seqs", "4"]
        plan = json.loads(vramd("plan", "--json", *options, path).stdout)
        d = Daemon("--model", path, *options)
        try:
            assert d.http.get("/v1/models").json()["data"][0]["id"] == "Tiny"
            answers.append(d.choice("To be, or not to be", max_tokens=24, logprobs=5, ignore_eos=True))
            memory = {c["class"]: c for c in d.memory()["classes"]}
        finally:
            text = d.stop()
        for name in ("weights", "kv", "tokenizer"):
            of_plan = sum(t["bytes"] for t in plan["terms"] if t["class"] == name)
            assert memory[name]["ledger_bytes"] == memory[name]["plan_bytes"] == of_plan > 0, name
        assert ("temperature=0.7" in text and "top_k=40" in text) == path.endswith("/")  # generation_config.json
    assert answers[0] == answers[1] and answers[0]["logprobs"]["token_logprobs"]


def test_inspect_and_plan_read_the_folder(both):
    folder, file = both
    r = vramd("inspect", str(folder), "--json")
    assert r.returncode == 0, r.stderr
    names = {t["name"]: t["shape"] for t in json.loads(r.stdout)["tensors"]}
    r = vramd("inspect", str(file), "--json")
    assert names == {t["name"]: t["shape"] for t in json.loads(r.stdout)["tensors"]}
    r = vramd("inspect", str(folder), "--json")
    facts = json.loads(r.stdout)["metadata"]
    assert facts["config.json"] == json.loads((folder / "config.json").read_text())
    assert facts["generation_config.json"]["temperature"] == 0.7 and facts["general.sampling.top_k"] == 40
    assert len(facts["tokenizer.ggml.tokens"]) == facts["config.json"]["vocab_size"]
    text = vramd("inspect", str(folder)).stdout
    for line in (r"hidden_size +64", r"temperature +0\.7", r'tokenizer\.ggml\.pre +"gpt-2"', r"tokenizer\.ggml\.merges +\[.* elements\]"):
        assert re.search(rf"^  {line}$", text, re.M), text[:3000]
    params = [json.loads(vramd("plan", str(p), "--json").stdout)["model"]["n_params"] for p in both]
    assert params[0] == params[1] > 0


def test_what_cannot_be_loaded_is_planned_and_refused_by_name(both, tmp_path):
    folder = tmp_path / "fp8"
    folder.mkdir()
    for f in both[0].iterdir():
        (folder / f.name).symlink_to(f)  # as the hub's cache has them
    assert vramd("plan", str(folder)).returncode == 0
    c = json.loads((folder / "config.json").read_text())
    c["quantization_config"] = {"quant_method": "fbgemm_fp8"}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(c))
    r = vramd("plan", str(folder))
    assert r.returncode == 0 and "weights are loaded from GPTQ, AWQ, FP8, compressed-tensors and MXFP4" in r.stdout, r.stdout + r.stderr
    r = vramd("serve", "--model", str(folder))
    assert r.returncode == 6 and "quantization_config" in r.stderr, r.stderr


@pytest.mark.parametrize("change, said, tensor", [
    ({"quantization_config": {"quant_method": "fbgemm_fp8"}}, "fp8", "down_proj.g_idx, I32"),
    ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes", "down_proj.g_idx, I32"),
    ({"quantization_config": None, "model_type": "rwkv"}, "rwkv", "model.embed_tokens.weight, F16")])
def test_a_folder_that_cannot_be_loaded_is_described(packed, tmp_path, change, said, tensor):
    folder = tmp_path / "odd"
    folder.mkdir()
    for f in packed("gptq")[0].iterdir():
        (folder / f.name).write_bytes(f.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    for path in ("", "model-00001-of-00002.safetensors", "config.json"):
        r = vramd("plan", str(folder / path))
        assert said.upper() in (r.stdout + r.stderr).upper(), r.stdout + r.stderr
        assert tensor in r.stdout + r.stderr or path == "config.json", r.stdout + r.stderr
    r = vramd("plan", "--weights", "Q4_K_M", str(folder))  # what the refusal says to do
    assert r.returncode == (6 if "rwkv" in said else 0), r.stderr


# ---- quantised ----


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The folder and the GGUF file of a model whose layers are stored in one of the ways of published.py."""
    d = tmp_path_factory.mktemp("packed")
    write_tiny(d / "source.gguf", "F32", width=128, ff=192)

    def make(kind):
        folder, file = d / kind / "Tiny", d / kind / "Tiny.gguf"
        if not file.exists():
            (d / kind).mkdir()
            publish(d / "source.gguf", folder, file, "F16", shards=2, packed=kind, group=64)
        return folder, file

    return make


def evaluate(path):
    return vramd("eval", str(path), "--file", str(TEXT), "--context", "128", "--tokens", "200", "--json")


def matrices(path):
    tensors = json.loads(vramd("inspect", str(path), "--json").stdout)["tensors"]
    return {t["name"]: t["shape"] for t in tensors if t["name"].startswith("blk.") and len(t["shape"]) == 2}


def matrix_bytes(path):
    terms = json.loads(vramd("plan", "--json", str(path)).stdout)["terms"]
    return sum(t["bytes"] for t in terms if t["class"] == "weights" and t["what"].startswith("blk.") and not t["what"].endswith("F32"))


def held_bytes(kind, k, n, scale=2, group=64):
    """Codes of 4 or 8 bits; a scale for each group, and where there are zero points one or two bytes."""
    bits, zeros = KINDS[kind]
    groups = 1 if kind == "int8" else k // group
    return n * k * (8 if bits == 8 else 4) // 8 + n * groups * (scale + zeros * {4: 1, 8: 2}.get(bits, 0))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "gptq8z"])
def test_codes_and_scales_give_the_bits_of_the_gguf_file(packed, kind):
    paths = packed(kind)
    answers = [json.loads(evaluate(p).stdout)["perplexity"] for p in paths]
    assert answers[0] == answers[1]
    assert matrix_bytes(paths[0]) == sum(held_bytes(kind, *s) for s in matrices(paths[1]).values())  # by headers alone
    texts = [vramd("generate", "--model", str(p), "--raw", "--max-tokens", "8", "--temperature", "0", "To be") for p in paths]
    assert texts[0].returncode == 0 and texts[0].stdout == texts[1].stdout, texts[0].stderr


def change(folder, to, tensor, edit):
    """A copy in which the bytes of one tensor were edited."""
    to.mkdir()
    for f in folder.iterdir():
        (to / f.name).write_bytes(f.read_bytes())
    index = to / "model.safetensors.index.json"
    file = to / (json.loads(index.read_text())["weight_map"][tensor] if index.exists() else "model.safetensors")
    data = bytearray(file.read_bytes())
    n = struct.unpack("<Q", data[:8])[0]
    begin, end = (8 + n + x for x in json.loads(data[8:8 + n])[tensor]["data_offsets"])
    data[begin:end] = edit(bytes(data[begin:end]))
    file.write_bytes(data)
    return to


LAYER = "model.layers.1.mlp.down_proj."


@pytest.mark.parametrize("kind, part, edit, said", [
    ("gptq", "qzeros", lambda b: b"\xff" * len(b), "with which a number does not fit"),
    ("gptq_v2", "qzeros", lambda b: b"\x00" * len(b), "with which a number does not fit"),
    ("gptq", "g_idx", lambda b: b"\x07" + b[1:], "its number of them"),
    ("gptq", "g_idx", lambda b: b[:-4] + b"\x00\x00\x00\x00", "its number of them"),
    ("gptq", "g_idx", lambda b: b[:-4] + b"\xff\xff\xff\xff", "its number of them"),
    ("gptq", "bias", lambda b: b[:-1] + b"\x3c", "no place in this architecture"),
    ("int4", "weight_scale", lambda b: b[:-2] + b"\x00\x7e", "not finite"),
])
def test_what_would_change_a_number_is_refused(packed, tmp_path, kind, part, edit, said):
    r = evaluate(change(packed(kind)[0], tmp_path / "odd", LAYER + part, edit))
    assert r.returncode in (5, 6) and said in r.stderr, r.stderr


def test_zero_points_of_codes_that_are_called_symmetric_are_held_if_the_config_says_so(packed, tmp_path):
    """The remedy that the refusal names."""
    odd = change(packed("gptq8")[0], tmp_path / "odd", LAYER + "qzeros", lambda b: b"\x03" * len(b))
    r = evaluate(odd)
    assert r.returncode == 6 and '"sym": false' in r.stderr, r.stderr
    c = json.loads((odd / "config.json").read_text())
    c["quantization_config"]["sym"] = False
    (odd / "config.json").write_text(json.dumps(c))
    r = evaluate(odd)
    assert r.returncode == 0, r.stderr


def weights_held_as_planned(path):
    """The terms of the plan, whose sum the ledger has."""
    options = ["--max-model-len", "128", "--max-num-seqs", "1"]
    terms = json.loads(vramd("plan", "--json", *options, str(path)).stdout)["terms"]
    size = {t["what"]: t["bytes"] for t in terms if t["class"] == "weights"}
    d = Daemon("--model", str(path), *options)
    try:
        held = next(c for c in d.memory()["classes"] if c["class"] == "weights")
    finally:
        d.stop()
    assert held["ledger_bytes"] == held["plan_bytes"] == sum(size.values()) > 0
    return size


def ordered(packed, tmp_path, kind, order):
    folder, file = tmp_path / order, tmp_path / f"{order}.gguf"
    publish(packed("gptq")[0].parent.parent / "source.gguf", folder, file, "F32", packed=kind, group=64, order=order)
    return folder, file


@pytest.mark.parametrize("kind", ["gptq", "gptq4z", "int4"])
def test_inputs_in_another_order(packed, tmp_path, kind):
    """The bits of a model whose rows before are in that order; as float32, the numbers of the GGUF file."""
    down, folded = (ordered(packed, tmp_path, kind, o)[0] for o in ("down", "folded"))
    answers = [json.loads(evaluate(p).stdout)["perplexity"] for p in (down, folded)]
    assert answers[0] == answers[1]
    paths = ordered(packed, tmp_path, kind, "all")
    options = ["--file", str(TEXT), "--context", "128", "--tokens", "200", "--json", "--activation-dtype", "f32"]
    answers = [json.loads(vramd("eval", str(p), *options).stdout)["perplexity"] for p in paths]
    assert answers[0]["value"] == pytest.approx(answers[1]["value"], rel=1e-5)
    if kind != "int4":
        return
    terms = weights_held_as_planned(paths[0])
    assert terms["permutations"] == 4 * 2 * (3 * 128 + 192)  # 4 bytes an input of each layer


@pytest.mark.parametrize("kind, scales", [("int4", "BF16"), ("int4z", "F32"), ("gptq4z", "BF16"), ("int8", "BF16"), ("int8", "F32"),
                                          ("gptq8z", "F16"), ("gptq8z", "F32")])
def test_scales_of_other_types_are_held_as_they_are(packed, tmp_path, kind, scales):
    folder, file = tmp_path / "Tiny", tmp_path / "Tiny.gguf"
    publish(packed("gptq")[0].parent.parent / "source.gguf", folder, file, "F32", packed=kind, group=64, scales=scales)
    options = ["--file", str(TEXT), "--context", "128", "--tokens", "200", "--json", "--activation-dtype", "f32"]
    answers = [json.loads(vramd("eval", str(p), *options).stdout)["perplexity"] for p in (folder, file)]
    assert answers[0] == answers[1]
    size = 4 if scales == "F32" else 2
    assert matrix_bytes(folder) == sum(held_bytes(kind, *s, size) for s in matrices(file).values())


@pytest.mark.parametrize("kind", FP8)
def test_fp8_gives_the_bits_of_its_numbers(packed, tmp_path, kind):
    folder, file = tmp_path / "Tiny", tmp_path / "Tiny.gguf"
    publish(packed("gptq")[0].parent.parent / "source.gguf", folder, file, "F32", packed=kind)
    answers = [json.loads(evaluate(p).stdout)["perplexity"] for p in (folder, file)]
    assert answers[0] == answers[1]
    groups = {"fp8_block": 64, "fp8_blocks": 64}.get(kind)
    assert matrix_bytes(folder) == sum(n * k + 4 * n * (k // groups if groups else 1) for k, n in matrices(file).values())
    nan = change(folder, tmp_path / "nan", LAYER + "weight", lambda b: b[:-1] + b"\x7f")
    assert "not finite" in evaluate(nan).stderr


@pytest.mark.parametrize("kind", ["gptq", "gptq4z", "gptq8", "awq", "int4"])
def test_the_last_group_of_an_output_may_be_short(packed, tmp_path, kind):
    """Groups of 128 of 192 inputs: held as groups of 64, of which two have the same scale."""
    folder, file = tmp_path / "Tiny", tmp_path / "Tiny.gguf"
    publish(packed("gptq")[0].parent.parent / "source.gguf", folder, file, "F16", packed=kind, group=128)
    answers = [json.loads(evaluate(p).stdout)["perplexity"] for p in (folder, file)]
    assert answers[0] == answers[1]
    assert matrix_bytes(folder) == sum(held_bytes(kind, *s, group=64 if s[0] == 192 else 128) for s in matrices(file).values())


def with_input_scales(folder, to, inputs):
    """A copy of a W8A8 folder whose config says how activations are rounded; if by fixed scales, it has them."""
    to.mkdir()
    for f in folder.iterdir():
        (to / f.name).write_bytes(f.read_bytes())
    c = json.loads((to / "config.json").read_text())
    c["quantization_config"]["config_groups"]["group_0"]["input_activations"] = inputs
    (to / "config.json").write_text(json.dumps(c))
    if inputs["dynamic"]:
        return to
    index = to / "model.safetensors.index.json"
    known = json.loads(index.read_text())
    for shard in to.glob("*.safetensors"):
        data = shard.read_bytes()
        n = struct.unpack("<Q", data[:8])[0]
        header, rest = json.loads(data[8:8 + n]), data[8 + n:]
        for name in [k.removesuffix("weight") + "input_scale" for k in header if k.endswith("_proj.weight")]:
            header[name] = {"dtype": "BF16", "shape": [1], "data_offsets": [len(rest), len(rest) + 2]}
            rest += b"\x80\x3f"
            known["weight_map"][name] = shard.name
        text = json.dumps(header).encode()
        shard.write_bytes(struct.pack("<Q", len(text)) + text + rest)
    index.write_text(json.dumps(known))
    return to


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_folder_of_smoothquant(packed, tmp_path, dynamic):
    """W8A8: a scale for each output; activations are rounded as the option says, and fixed scales of theirs are named in the log."""
    paths = packed("int8")
    inputs = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": dynamic, "strategy": "token" if dynamic else "tensor"}
    folder = with_input_scales(paths[0], tmp_path / "w8a8", inputs)
    answers = [json.loads(evaluate(p).stdout)["perplexity"] for p in (folder, paths[1])]
    assert answers[0] == answers[1]
    d = Daemon("--model", str(folder), "--max-model-len", "128", "--max-num-seqs", "1")
    try:
        assert ("fixed scales of activations" in d.text()) is not dynamic
    finally:
        d.stop()


@pytest.mark.parametrize("change_of, said", [({"bits": 5}, "bits"), ({"checkpoint_format": "marlin"}, "marlin")])
def test_schemes_that_are_not_read_are_named(packed, tmp_path, change_of, said):
    folder = change(packed("gptq")[0], tmp_path / "odd", LAYER + "scales", lambda b: b)
    c = json.loads((folder / "config.json").read_text())
    c["quantization_config"] |= change_of
    (folder / "config.json").write_text(json.dumps(c))
    r = vramd("serve", "--model", str(folder))
    assert r.returncode == 6 and said in r.stderr, r.stderr


def with_pre_tokenizer(folder, to, *parts):
    """The same model, whose words are cut by other patterns."""
    to.mkdir()
    for f in folder.iterdir():
        (to / f.name).symlink_to(f)
    t = json.loads((folder / "tokenizer.json").read_text())
    t["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*parts, {"type": "ByteLevel", "add_prefix_space": False,
                                                                         "use_regex": False}]}
    (to / "tokenizer.json").unlink()
    (to / "tokenizer.json").write_text(json.dumps(t))
    return str(to)


def split(regex, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def test_patterns_of_its_own_cut_words(both, tmp_path):
    """One that says what a known one does, in other words, gives the same tokens; another cuts otherwise."""
    known = vramd("tokenize", str(both[1]), input=ODD).stdout
    for i, parts in enumerate(([split(f"(?:{GPT2})")], [split(f"(?:{GPT2})", "Removed", True)])):
        r = vramd("tokenize", with_pre_tokenizer(both[0], tmp_path / f"same{i}", *parts), input=ODD)
        assert r.returncode == 0 and r.stdout == known, r.stderr
    r = vramd("tokenize", with_pre_tokenizer(both[0], tmp_path / "letters", split(r"\p{L}")), "--json", input="an other")
    assert len(json.loads(r.stdout)) == 8
    r = vramd("serve", "--check", "--model", str(tmp_path / "letters"), "--pre-tokenizer", "gpt-2")
    assert r.returncode == 0, r.stderr


@pytest.mark.parametrize("part, said", [(split("a(?<"), "does not compile"), (split("a", "MergedWithNext"), "Isolated"),
                                        ({"type": "Whitespace"}, '"Whitespace" is not supported')])
def test_pre_tokenizers_that_cannot_be_had_are_named(both, tmp_path, part, said):
    r = vramd("tokenize", with_pre_tokenizer(both[0], tmp_path / "bad", part), input="a")
    assert r.returncode == 6 and said in r.stderr, r.stderr


def test_a_pattern_that_never_ends_is_given_up(both, tmp_path):
    folder = with_pre_tokenizer(both[0], tmp_path / "slow", split("(?:a+)+$"))
    r = vramd("tokenize", folder, input="a" * 4000 + "!")
    assert r.returncode == 8 and "gave up" in r.stderr, r.stderr


def test_a_tensor_that_is_not_finite_is_refused(both, tmp_path):
    folder = tmp_path / "nan"
    folder.mkdir()
    for f in both[0].iterdir():
        (folder / f.name).write_bytes(f.read_bytes())
    name = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]["model.layers.1.mlp.down_proj.weight"]
    data = bytearray((folder / name).read_bytes())
    n = struct.unpack("<Q", data[:8])[0]
    at = 8 + n + json.loads(data[8:8 + n])["model.layers.1.mlp.down_proj.weight"]["data_offsets"][0]
    data[at:at + 4] = b"\xff" * 4
    (folder / name).write_bytes(data)
    r = vramd("generate", "--model", str(folder), "--max-tokens", "1", "--raw", "x")
    assert r.returncode == 5 and "blk.1.ffn_down.weight" in r.stderr, r.stderr
