"""The endpoints of llama.cpp's server: /completion, /infill, /embedding, /props, /slots."""

import json
import threading
import time

import gguf
import pytest

import tiny_model
from harness import Daemon

STORY = "Once upon a time"


def native(d, path="/completion", **body):
    r = d.http.post(path, json={"temperature": 0, **body})
    assert r.status_code == 200, r.text
    return r.json()


def events(d, **body):
    r = d.http.post("/completion", json={"temperature": 0, "stream": True, **body})
    assert r.status_code == 200 and r.headers["content-type"].startswith("text/event-stream")
    lines = r.text.split("\n\n")
    assert lines.pop() == "" and all(x.startswith("data: {") for x in lines)  # no [DONE]
    return [json.loads(x[6:]) for x in lines]


def test_a_completion_has_what_its_clients_read(daemon):
    c = daemon.choice(STORY, max_tokens=12)
    r = native(daemon, prompt=STORY, n_predict=12, return_tokens=True, cache_prompt=True, id_slot=0)
    assert r["content"] == c["text"] and len(r["tokens"]) == 12 and r["stop"] is True
    n = len(daemon.tokens(STORY))
    assert (r["tokens_evaluated"], r["tokens_predicted"], r["tokens_cached"]) == (n, 12, n + 12)
    assert r["stop_type"] == "limit" and r["stopping_word"] == "" and r["truncated"] is False and r["prompt"] == STORY
    assert r["has_new_line"] == ("\n" in r["content"])
    t = r["timings"]
    assert t["prompt_n"] + t["cache_n"] == n and t["predicted_n"] == 12 and t["prompt_ms"] > 0 and t["predicted_ms"] > 0
    assert t["predicted_per_second"] == pytest.approx(12e3 / t["predicted_ms"])
    g = r["generation_settings"]
    assert g["n_predict"] == 12 and g["temperature"] == 0 and g["stream"] is False and g["stop"] == []
    assert native(daemon, prompt=STORY, n_predict=2)["tokens"] == []


def test_stop_types(daemon):
    text = native(daemon, prompt=STORY, n_predict=12)["content"]
    word = text.split()[3]
    r = native(daemon, prompt=STORY, n_predict=12, stop=[word])
    assert r["stop_type"] == "word" and r["stopping_word"] == word and r["content"] == text[:text.index(word)]
    eos = daemon.http.get("/tokenizer_info").json()["eos_token"]
    r = native(daemon, prompt="x", n_predict=12, logit_bias=[[daemon.tokens(eos)[0], 100]])
    assert r["stop_type"] == "eos" and r["content"] == "" and r["tokens_predicted"] == 1


def test_stream_ends_with_stop_true_and_nothing_behind_it(daemon):
    whole = native(daemon, prompt=STORY, n_predict=20, return_tokens=True)
    got = events(daemon, prompt=STORY, n_predict=20)
    assert "".join(e["content"] for e in got) == whole["content"]
    assert [t for e in got for t in e["tokens"]] == whole["tokens"]
    assert [e["stop"] for e in got] == [False] * (len(got) - 1) + [True]
    for key in ("tokens_evaluated", "tokens_predicted", "stop_type", "has_new_line", "truncated"):
        assert got[-1][key] == whole[key], key
    assert got[-1]["timings"]["predicted_n"] == 20 and [e["tokens_predicted"] for e in got] == sorted(e["tokens_predicted"] for e in got)


def test_probabilities(daemon):
    r = native(daemon, prompt=STORY, n_predict=4, n_probs=3, return_tokens=True)
    probs = r["completion_probabilities"]
    assert [p["id"] for p in probs] == r["tokens"] and "".join(p["token"] for p in probs) == r["content"]
    for p in probs:
        assert len(p["top_logprobs"]) == 3 and p["top_logprobs"][0]["id"] == p["id"]
        assert p["logprob"] == p["top_logprobs"][0]["logprob"] and bytes(p["bytes"]).decode() == p["token"]
    streamed = [p for e in events(daemon, prompt=STORY, n_predict=4, n_probs=3) for p in e["completion_probabilities"]]
    assert streamed == probs
    assert "completion_probabilities" not in native(daemon, prompt=STORY, n_predict=1)


def test_prompts_and_lengths(daemon):
    ids = daemon.tokens(STORY)
    one = native(daemon, prompt=STORY, n_predict=4)["content"]
    assert native(daemon, prompt=ids, n_predict=4)["content"] == one
    many = native(daemon, prompt=[STORY, ids], n_predict=4)
    assert [m["content"] for m in many] == [one, one] and [m["index"] for m in many] == [0, 1]
    r = native(daemon, prompt=STORY, n_predict=0)
    assert r["content"] == "" and r["tokens_predicted"] == 0
    assert native(daemon, prompt=STORY, n_predict=-1, stop=["."])["stop_type"] == "word"  # not cut at 16 tokens
    forbidden = daemon.tokens(one)[0]
    assert not native(daemon, prompt=STORY, n_predict=1, return_tokens=True, logit_bias=[[forbidden, False]])["tokens"] == [forbidden]


def test_a_bias_of_a_text_is_that_of_each_of_its_tokens(daemon):
    text = " green tomatoes"
    ids = daemon.tokens(text, add_special_tokens=False)
    assert len(ids) > 1
    for form in ([[text, 100]], {text: 100}, {str(ids[0]): 100, text: 100}):
        r = native(daemon, prompt=STORY, n_predict=8, return_tokens=True, ignore_eos=True, logit_bias=form)
        assert set(r["tokens"]) <= set(ids), form
    first = native(daemon, prompt=STORY, n_predict=1)["content"]
    for never in (False, -100):
        r = native(daemon, prompt=STORY, n_predict=12, return_tokens=True, logit_bias=[[first + text, never], [" a b", 1]])
        assert not set(r["tokens"]) & set(daemon.tokens(first + text, add_special_tokens=False))
    free = native(daemon, prompt=STORY, n_predict=12)["content"]
    assert native(daemon, prompt=STORY, n_predict=12, logit_bias=[])["content"] == free == \
        native(daemon, prompt=STORY, n_predict=12, logit_bias={})["content"]
    r = daemon.http.post("/completion", json={"prompt": "x", "logit_bias": {"99999999": 1}})
    assert r.status_code == 400 and r.json()["error"]["param"] == "logit_bias"


def test_what_is_refused(daemon):
    for body, param in (({}, "prompt"), ({"prompt": "x", "n_probs": 21}, "n_probs"), ({"prompt": "x", "mirostat": 2}, "mirostat"),
                        ({"prompt": "x", "logit_bias": [[1]]}, "logit_bias"), ({"prompt": "x", "n_predict": "a"}, "n_predict")):
        r = daemon.http.post("/completion", json=body)
        assert r.status_code == 400 and r.json()["error"]["param"] == param, (body, r.text)


def test_props_and_slots(daemon):
    p = daemon.http.get("/props").json()
    assert p["total_slots"] == 32 and p["default_generation_settings"]["n_ctx"] == 1024 and "<|im_start|>" in p["chat_template"]
    info = daemon.http.get("/tokenizer_info").json()
    assert (p["bos_token"], p["eos_token"]) == (info["bos_token"], info["eos_token"])
    idle = daemon.http.get("/slots").json()
    assert len(idle) == 32 and not any(s["is_processing"] for s in idle)
    t = threading.Thread(target=lambda: native(daemon, prompt=STORY, n_predict=400, ignore_eos=True))
    t.start()
    for _ in range(500):
        busy = [s for s in daemon.http.get("/slots").json() if s["is_processing"]]
        if busy:
            break
        time.sleep(0.01)
    assert len(busy) == 1 and busy[0]["id_task"] > 0 and busy[0]["n_ctx"] == 1024
    t.join()


def test_infill_needs_tokens_for_it(daemon):
    r = daemon.http.post("/infill", json={"input_prefix": "a", "input_suffix": "b"})
    assert r.status_code == 400 and "filling in the middle" in r.text


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A model whose vocabulary has the three tokens, in place of its last ones."""
    folder = tmp_path_factory.mktemp("native")
    plain, path = folder / "plain.gguf", folder / "code.gguf"
    tiny_model.write(plain, "F16")
    r = gguf.GGUFReader(plain)
    w = gguf.GGUFWriter(path, "llama")
    for f in r.fields.values():
        value = f.contents()
        if f.name.startswith("GGUF.") or f.name == "general.architecture":
            continue
        if f.name == "tokenizer.ggml.tokens":
            value = value[:-3] + ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
        if f.name == "tokenizer.ggml.token_type":
            value = value[:-3] + [int(gguf.TokenType.CONTROL)] * 3
        w.add_key_value(f.name, value, f.types[0], f.types[-1] if len(f.types) > 1 else None)
    for t in r.tensors:
        w.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    d = Daemon("--model", str(path), "--threads", "1", "--embeddings", "auto")
    yield d
    d.stop()


def test_infill_is_the_prompt_between_the_tokens(code):
    pre, suf, mid = (code.tokens(f"<|fim_{x}|>", add_special_tokens=False)[0] for x in ("prefix", "suffix", "middle"))
    a, b, c = (code.tokens(x, add_special_tokens=False) for x in ("def f(", "): pass", "x, "))
    r = native(code, "/infill", input_prefix="def f(", input_suffix="): pass", prompt="x, ", n_predict=6)
    same = native(code, prompt=[pre, *a, suf, *b, mid, *c], n_predict=6)
    assert r["content"] == same["content"] and r["tokens_evaluated"] == same["tokens_evaluated"] == 3 + len(a) + len(b) + len(c)
    # What the client wrote is text, even where it looks like a token.
    r = native(code, "/infill", input_prefix="<|fim_middle|>", input_suffix="", n_predict=1)
    assert r["tokens_evaluated"] > 4


def test_embedding(code):
    r = code.http.post("/embedding", json={"content": ["a", "b"]}).json()
    want = code.http.post("/v1/embeddings", json={"input": ["a", "b"]}).json()["data"]
    assert [x["embedding"] for x in r] == [[x["embedding"]] for x in want] and [x["index"] for x in r] == [0, 1]


def test_a_schema_and_a_grammar(daemon):
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"],
              "additionalProperties": False}
    assert 1 <= json.loads(native(daemon, prompt=STORY, n_predict=60, json_schema=schema)["content"])["n"] <= 9
    r = native(daemon, prompt=STORY, n_predict=60, grammar='root ::= "yes" | "no"')
    assert r["content"] in ("yes", "no") and r["stop_type"] == "eos"
