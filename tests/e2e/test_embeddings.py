"""POST /v1/embeddings: hidden states of a decoder, against a forward pass in numpy, and the openai client."""

import base64
import math
import sys
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import openai
import pytest

import tiny_model
from harness import Daemon, refused

TEXTS = ["Once upon a time", "x", "the quick brown fox jumps over the lazy dog " * 6, "Grüße, Welt! 你好"]
OPTIONS = ["--max-model-len", "512", "--max-num-seqs", "4", "--threads", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("embeddings") / "tiny.gguf"
    tiny_model.write(path, "F16")
    return str(path)


@pytest.fixture(scope="module", params=["last", "mean"])
def server(request, model):
    d = Daemon("--model", model, "--embeddings", request.param, "--activation-dtype", "f32", "--kv-cache-dtype", "f32", *OPTIONS)
    d.pooling = request.param
    yield d
    d.wait_free()
    d.stop()


class Reference:
    """The llama of tiny_model.py in float64: hidden states behind the last norm."""

    def __init__(self, path):
        r = gguf.GGUFReader(path)
        self.w = {t.name: t.data.astype(np.float64) for t in r.tensors}
        field = lambda key: r.fields[f"llama.{key}"].contents()  # noqa: E731
        self.layers, self.heads, self.kv_heads = (field(k) for k in ("block_count", "attention.head_count", "attention.head_count_kv"))

    @staticmethod
    def norm(x, w):
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-5) * w

    @staticmethod
    def rope(x):
        n, _, dim = x.shape
        angle = np.arange(n)[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        out = np.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def hidden(self, ids):
        w, n = self.w, len(ids)
        x = w["token_embd.weight"][ids]
        mask = np.triu(np.full((n, n), -np.inf), 1)
        for i in range(self.layers):
            at = lambda name: w[f"blk.{i}.{name}.weight"]  # noqa: E731, B023
            h = self.norm(x, at("attn_norm"))
            q, k, v = ((h @ at(name).T).reshape(n, m, -1) for name, m in (("attn_q", self.heads), ("attn_k", self.kv_heads), ("attn_v", self.kv_heads)))
            q, k = self.rope(q), self.rope(k)
            k, v = (np.repeat(t, self.heads // self.kv_heads, 1) for t in (k, v))
            s = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1]) + mask
            p = np.exp(s - s.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            x = x + np.einsum("hqk,khd->qhd", p, v).reshape(n, -1) @ at("attn_output").T
            h = self.norm(x, at("ffn_norm"))
            g = h @ at("ffn_gate").T
            x = x + (g / (1 + np.exp(-g)) * (h @ at("ffn_up").T)) @ at("ffn_down").T
        return self.norm(x, w["output_norm.weight"])

    def vector(self, ids, pooling, dims=None):
        h = self.hidden(ids)
        v = (h[-1] if pooling == "last" else h.mean(0))[:dims]
        return v / np.linalg.norm(v)


def embed(d, given, **more):
    r = d.http.post("/v1/embeddings", json={"input": given, **more})
    assert r.status_code == 200, r.text
    body = r.json()
    assert body["object"] == "list" and [x["index"] for x in body["data"]] == list(range(len(body["data"])))
    return body


def vectors(d, given, **more):
    return [x["embedding"] for x in embed(d, given, **more)["data"]]


def test_vectors_are_the_models_hidden_states(server, model):
    reference = Reference(model)
    for text, got in zip(TEXTS, vectors(server, TEXTS)):
        want = reference.vector(server.tokens(text), server.pooling)
        assert abs(np.linalg.norm(got) - 1) < 1e-6
        assert np.abs(np.array(got) - want).max() < 2e-5, text
    ids = server.tokens(TEXTS[2])
    short = vectors(server, TEXTS[2], dimensions=5)[0]
    assert np.abs(np.array(short) - reference.vector(ids, server.pooling, 5)).max() < 2e-5


def test_the_four_forms_of_input_and_usage(server):
    ids = [server.tokens(t) for t in TEXTS]
    one, many = embed(server, TEXTS[0]), embed(server, TEXTS)
    assert one["data"][0] == many["data"][0] and len(many["data"]) == len(TEXTS)
    assert vectors(server, ids[1]) == vectors(server, TEXTS[1])
    assert vectors(server, ids) == [x["embedding"] for x in many["data"]]
    n = sum(map(len, ids))
    assert many["usage"] == {"prompt_tokens": n, "total_tokens": n} and many["model"] == "tiny"


def test_base64_is_the_same_floats(server):
    plain = vectors(server, TEXTS)
    packed = vectors(server, TEXTS, encoding_format="base64")
    for a, b in zip(plain, packed):
        assert np.array_equal(np.array(a, np.float32), np.frombuffer(base64.b64decode(b, validate=True), "<f4"))


def test_openai_client(server):
    got = server.client.embeddings.create(model="tiny", input=TEXTS)  # asks for base64 by itself
    assert [np.float32(x.embedding).tolist() for x in got.data] == [np.float32(v).tolist() for v in vectors(server, TEXTS)]
    assert len(server.client.embeddings.create(model="tiny", input="x", dimensions=7).data[0].embedding) == 7
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        server.client.embeddings.create(model="tiny", input="x", dimensions=65)


def test_same_bits_alone_amid_others_and_again(server):
    long = "a b c d e f g h " * 25
    alone = vectors(server, long, encoding_format="base64")

    def busy(i):
        return server.complete(f"{i} " * 40, max_tokens=60, ignore_eos=True, cache_salt=str(i)).status_code

    with ThreadPoolExecutor(5) as pool:
        others = [pool.submit(busy, i) for i in range(4)]
        for i in range(4):
            assert vectors(server, [f"{i}", long], encoding_format="base64", cache_salt=f"e{i}")[1:] == alone
        assert [o.result() for o in others] == [200] * 4
    # Another cut into steps: the chunks of a smaller budget, and with the prefix cache's hits.
    assert vectors(server, long, encoding_format="base64") == alone
    server.wait_free()


def test_same_bits_in_any_chunking(server, model):
    long = "a b c d e f g h " * 25
    d = Daemon("--model", model, "--embeddings", server.pooling, "--activation-dtype", "f32", "--kv-cache-dtype", "f32",
               "--max-num-batched-tokens", "7", "--prefix-caching=false", *OPTIONS)
    try:
        assert vectors(d, long, encoding_format="base64") == vectors(server, long, encoding_format="base64")
        assert d.memory()["plan_bytes"] >= d.memory()["ledger_bytes"]
    finally:
        d.stop()


def test_more_inputs_than_the_queue_has_places(server):
    texts = [f"text {i}" for i in range(600)]
    got = vectors(server, texts, dimensions=4)
    assert len(got) == 600 and got[599] == vectors(server, texts[599], dimensions=4)[0]
    r = server.http.post("/v1/embeddings", json={"input": ["x"] * 2049})
    assert r.status_code == 400 and r.json()["error"]["param"] == "input"


def test_what_is_refused(server):
    for body, param in (({}, "input"), ({"input": None}, "input"), ({"input": []}, "input"), ({"input": [[]]}, "input"),
                        ({"input": [1, -1]}, "input"), ({"input": {"a": 1}}, "input"), ({"input": ["a", 3]}, "input"),
                        ({"input": "x", "encoding_format": "int8"}, "encoding_format"), ({"input": "x", "dimensions": 0}, "dimensions"),
                        ({"input": [1] * 513}, "input")):
        r = server.http.post("/v1/embeddings", json=body)
        assert r.status_code == 400 and r.json()["error"]["param"] == param, (body, r.text)
    assert server.http.post("/v1/embeddings", json={"input": "x", "model": "other"}).status_code == 404


def test_off_by_default(daemon):
    r = daemon.http.post("/v1/embeddings", json={"input": "x"})
    assert r.status_code == 400 and r.json()["error"]["code"] == "unsupported_parameter" and "embeddings = auto" in r.text
    assert "embeddings" in refused("--embeddings", "first").stderr


def test_the_plan_has_the_states(model):
    """The rows that are read after a step are planned, and the ledger holds them to the byte."""
    sizes = {}
    for word in ("off", "auto"):
        d = Daemon("--model", model, "--embeddings", word, *OPTIONS)
        try:
            c = {x["class"]: x for x in d.memory()["classes"]}["activations"]
            assert c["plan_bytes"] == c["ledger_bytes"]
            sizes[word] = c["plan_bytes"]
        finally:
            d.stop()
    assert sizes["auto"] >= sizes["off"]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
