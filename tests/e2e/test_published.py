"""Models as they are published, a folder of safetensors with config.json and tokenizer.json: the same
tokens and the same bits as the GGUF file of the same numbers, from every command."""

import json
import struct

import pytest

from harness import Daemon, ROOT, vramd
from published import write as publish
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
    params = [json.loads(vramd("plan", str(p), "--json").stdout)["model"]["n_params"] for p in both]
    assert params[0] == params[1] > 0


def test_a_quantised_folder_is_planned_and_refused_by_name(both, tmp_path):
    folder = tmp_path / "gptq"
    folder.mkdir()
    for f in both[0].iterdir():
        (folder / f.name).symlink_to(f)  # as the hub's cache has them
    assert vramd("plan", str(folder)).returncode == 0
    c = json.loads((folder / "config.json").read_text())
    c["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(c))
    r = vramd("plan", str(folder))
    assert r.returncode == 0 and "cannot be loaded from safetensors yet" in r.stdout, r.stdout + r.stderr
    r = vramd("serve", "--model", str(folder))
    assert r.returncode == 6 and "GPTQ" in r.stderr, r.stderr


def test_an_unknown_pre_tokenizer_is_named_and_can_be_replaced(both, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for f in both[0].iterdir():
        (folder / f.name).symlink_to(f)
    t = json.loads((folder / "tokenizer.json").read_text())
    t["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[a-z]+|[^a-z]+"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]}
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(t))
    r = vramd("tokenize", str(folder), input="a")
    assert r.returncode == 6 and "[a-z]+|[^a-z]+" in r.stderr, r.stderr
    assert vramd("serve", "--check", "--model", str(folder)).returncode == 6
    r = vramd("serve", "--check", "--model", str(folder), "--pre-tokenizer", "gpt-2")
    assert r.returncode == 0, r.stderr


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
