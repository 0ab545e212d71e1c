"""gpt-oss, tiny and made to say given words: turns in harmony's format as the openai package sees them, what a plan says of
the published folder, and that both forms are one model."""

import json
import sys

import gguf
import numpy as np
import pytest

from harness import ROOT, Daemon, vramd

sys.path.append(str(ROOT / "tests/golden"))
import make_gpt_oss  # noqa: E402

FOLDER = ROOT / "tests/golden/families/gpt-oss"
VOCABULARY = ROOT / "tests/golden/tokenizer/mixed.gguf"
SPECIAL = ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>"]
TEMPLATE = ("{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}"
            "{% for m in messages %}{% if m.tool_calls %}{% set f = m.tool_calls[0].function %}"
            "<|start|>assistant to=functions.{{ f.name }}<|channel|>commentary json<|message|>{{ f.arguments | tojson }}<|call|>"
            "{% elif m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>"
            "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}<|start|>assistant{% endif %}")
ASSISTANT = ["assistant"[i:] for i in range(9)]  # as the prompt may end, in whatever tokens
ASK = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def write(path, words):
    """A model that says these words, tokens each, one after the other; the last ones lead back to "assistant"."""
    old = {f.name: f.contents() for f in gguf.GGUFReader(VOCABULARY).fields.values() if f.name.startswith("tokenizer.")}
    tokens, types = list(old["tokenizer.ggml.tokens"]), list(old["tokenizer.ggml.token_type"])
    for word in SPECIAL + words + ["assistant"]:
        if word not in tokens:
            tokens.append(word)
            types.append(gguf.TokenType.CONTROL if word in SPECIAL else gguf.TokenType.NORMAL)
    w = make_gpt_oss.weights(np.random.default_rng(3), len(tokens))
    for name, x in w.items():  # so that the last word decides
        if "o_proj" in name:
            x *= 0.05
        if "down_proj" in name:
            w[name] = (x[0], x[1] - 5) if isinstance(x, tuple) else x * 0.05
    w["lm_head.weight"] *= 0.3
    for before, word in zip([ASSISTANT, *([x] for x in words)], words):
        for b in before:
            if b in tokens:
                x = w["embed_tokens.weight"][tokens.index(b)]
                w["lm_head.weight"][tokens.index(word)] += 3 * x / np.sqrt((x * x).sum())
    w["lm_head.weight"] = np.float64(np.float16(w["lm_head.weight"]))

    def vocabulary(g):
        g.add_tokenizer_model("gpt2")
        g.add_tokenizer_pre("gpt-2")
        g.add_token_list(tokens)
        g.add_token_types(types)
        g.add_token_merges(old["tokenizer.ggml.merges"])
        g.add_eos_token_id(tokens.index("<|return|>"))
        g.add_chat_template(TEMPLATE)

    make_gpt_oss.write_gguf(path, w, vocabulary)


@pytest.fixture
def serve(tmp_path):
    daemons = []

    def start(*words):
        write(tmp_path / "oss.gguf", list(words))
        daemons.append(Daemon("--model", str(tmp_path / "oss.gguf")))
        return daemons[-1]

    yield start
    for d in daemons:
        d.wait_free()
        assert all(c["ledger_bytes"] <= c["plan_bytes"] for c in d.memory()["classes"])
        d.stop()


def chat(d, **more):
    return d.client.chat.completions.create(**{"model": "", "messages": ASK, "max_tokens": 40, "temperature": 0, **more})


def test_return_ends_an_answer(serve):
    d = serve("<|channel|>", "final", "<|message|>", "Hello", "<|return|>")
    r = chat(d)
    assert r.choices[0].message.content == "Hello" and r.choices[0].finish_reason == "stop", r
    assert r.usage.completion_tokens == 5
    text = "".join(c.choices[0].delta.content or "" for c in chat(d, stream=True) if c.choices)
    assert text == "Hello"


def test_call_ends_a_call(serve):
    d = serve("Ġto", "=functions.f", "<|channel|>", "commentary", "<|message|>", "{}", "<|call|>")
    r = chat(d, tools=[TOOL])
    assert r.choices[0].finish_reason == "tool_calls", r
    (call,) = r.choices[0].message.tool_calls
    assert call.function.name == "f" and json.loads(call.function.arguments) == {}
    r = chat(d)  # without tools it is no call, and ends all the same
    assert r.choices[0].finish_reason == "stop" and r.usage.completion_tokens == 7, r


def test_end_is_of_a_message_not_of_a_turn(serve):
    d = serve("<|channel|>", "analysis", "<|message|>", "Hm", "<|end|>", "<|start|>", "assistant", "<|channel|>")
    r = chat(d, max_tokens=20)
    assert r.choices[0].finish_reason == "length" and r.choices[0].message.reasoning_content.startswith("HmHm"), r
    assert not r.choices[0].message.content and r.usage.completion_tokens == 20


def planned(path, *more):
    r = vramd("plan", str(path), "--json", "--backend", "cpu", "--memory", "1GiB", *more)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


def test_the_published_folder_is_planned_from_its_headers():
    folder, file = planned(FOLDER), planned(FOLDER.with_suffix(".gguf"))
    weights = [[t for t in p["terms"] if t["class"] == "weights"] for p in (folder, file)]
    assert weights[0] == weights[1] and all(t["kind"] == "exact" for t in weights[0])
    assert folder["runnable"] and not folder.get("missing")
    m = make_gpt_oss
    assert sum(t["bytes"] for t in weights[0]) > m.LAYERS * m.EXPERTS * 3 * m.EMBD * m.FF * 17 // 32


def tensors(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def test_the_published_folder_is_exported_as_it_is(tmp_path):
    r = vramd("quantize", str(FOLDER), str(tmp_path / "out.gguf"))
    assert r.returncode == 0, r.stderr
    ours, theirs = tensors(tmp_path / "out.gguf"), tensors(FOLDER.with_suffix(".gguf"))
    assert ours.keys() == theirs.keys()
    for name, t in ours.items():
        assert t.tensor_type == theirs[name].tensor_type and (t.data == theirs[name].data).all(), name
    programs = [vramd("inspect", str(p), "--program").stdout for p in (FOLDER, tmp_path / "out.gguf")]
    assert "experts_down" in programs[0] and programs[0].replace("BF16", "F32") == programs[1]  # vectors become F32


def test_mxfp4_is_written_and_read_back(tmp_path):
    r = vramd("quantize", str(FOLDER), str(tmp_path / "f32.gguf"), "--type", "F32")
    assert r.returncode == 0, r.stderr
    r = vramd("quantize", str(tmp_path / "f32.gguf"), str(tmp_path / "again.gguf"), "--type", "MXFP4", "--pure")
    assert r.returncode == 0, r.stderr
    f32, again = tensors(tmp_path / "f32.gguf"), tensors(tmp_path / "again.gguf")
    mxfp4 = gguf.GGMLQuantizationType.MXFP4
    for name, t in tensors(FOLDER.with_suffix(".gguf")).items():
        if t.tensor_type == mxfp4:  # the scales of random codes are not always the same, numbers that fit are
            assert (f32[name].data == gguf.quants.dequantize(t.data, mxfp4)).all(), name
            assert (again[name].data == gguf.quants.quantize(np.array(f32[name].data), mxfp4)).all(), name


def test_a_folder_without_its_scales_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_bytes((FOLDER / "config.json").read_bytes())
    raw = (FOLDER / "model.safetensors").read_bytes()
    n = int.from_bytes(raw[:8], "little")
    head = raw[8:8 + n].replace(b"layers.1.mlp.experts.down_proj_scales", b"layers.9.mlp.experts.down_proj_scales")
    (tmp_path / "model.safetensors").write_bytes(raw[:8] + head + raw[8 + n:])
    r = vramd("plan", str(tmp_path), "--backend", "cpu")
    assert r.returncode != 0 and "blk.1.ffn_down_exps.weight has no scales" in r.stderr, r.stderr
