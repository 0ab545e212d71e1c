"""Models that only embed (BERT, nomic-bert) or score pairs (a cross-encoder): tiny ones of tests/golden, as GGUF file and as folder,
against the plain formulas that made them, and the real all-MiniLM-L6-v2 where it has been fetched (tools/get-model.sh minilm)."""

import base64
import json
import os
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openai
import pytest

from harness import MODEL, ROOT, Daemon, refused, vramd

sys.path.insert(0, str(ROOT / "tests/golden"))
import make_encoders as made  # noqa: E402

FOLDER = ROOT / "tests/golden/families"
OPTIONS = ["--threads", "2", "--activation-dtype", "f32"]
TEXTS = ["The cat sat on the mat.", "x", "Paris is the capital of France, and Berlin of Germany! " * 12, "Grüße 123 [SEP]"]


def weights(name):
    m = made.MODELS[name]
    return m, made.random_weights(m, np.random.default_rng(7))


@pytest.fixture(scope="module", params=["bert.gguf", "bert", "nomic-bert.gguf", "nomic-bert"])
def server(request):
    d = Daemon("--model", str(FOLDER / request.param), *OPTIONS)
    d.name = request.param.removesuffix(".gguf")
    yield d
    d.stop()


@pytest.fixture(scope="module", params=["bert-rank.gguf", "bert-rank"])
def ranker(request):
    d = Daemon("--model", str(FOLDER / request.param), *OPTIONS)
    d.name = "bert-rank"
    yield d
    d.stop()


def embed(d, given, **more):
    r = d.http.post("/v1/embeddings", json={"input": given, **more})
    assert r.status_code == 200, r.text
    return r.json()


def vectors(d, given, **more):
    return [x["embedding"] for x in embed(d, given, **more)["data"]]


def reference(name, ids, dims=None):
    m, w = weights(name)
    v = made.vectors(m, w, np.array(ids), 0)[1 if m["pooling"] == "cls_token" else 0][:dims]
    return v / np.linalg.norm(v)


def test_words_are_cut_as_bert_does(server):
    def word(t):
        return made.TEXTS.index(t)

    assert server.tokens("The cat", add_special_tokens=True) == [2, word("the"), word("cat"), 3]
    assert server.tokens("cats", add_special_tokens=False) == [word("cat"), word("##s")]
    assert server.tokens("Fränce?", add_special_tokens=False) == [word("france"), word("?")]
    assert server.tokens("café 漢", add_special_tokens=False) == [word("c"), word("##a"), word("##f"), word("##e"), 1]


def test_vectors_are_those_of_the_formulas(server):
    for text, got in zip(TEXTS, vectors(server, TEXTS)):
        want = reference(server.name, server.tokens(text, add_special_tokens=True))
        assert abs(np.linalg.norm(got) - 1) < 1e-6
        assert np.abs(np.array(got) - want).max() < 1e-5, text
    ids = server.tokens(TEXTS[2], add_special_tokens=True)
    assert np.abs(np.array(vectors(server, TEXTS[2], dimensions=5)[0]) - reference(server.name, ids, 5)).max() < 1e-5


def test_the_four_forms_of_input_and_usage(server):
    ids = [server.tokens(t, add_special_tokens=True) for t in TEXTS]
    many = embed(server, TEXTS)
    assert embed(server, TEXTS[0])["data"][0] == many["data"][0] and [x["index"] for x in many["data"]] == [0, 1, 2, 3]
    assert vectors(server, ids[1]) == vectors(server, TEXTS[1])
    assert vectors(server, ids) == [x["embedding"] for x in many["data"]]
    n = sum(map(len, ids))
    assert many["usage"] == {"prompt_tokens": n, "total_tokens": n}
    packed = vectors(server, TEXTS, encoding_format="base64")
    for a, b in zip(many["data"], packed):
        assert np.array_equal(np.array(a["embedding"], np.float32), np.frombuffer(base64.b64decode(b, validate=True), "<f4"))


def test_openai_client(server):
    model = server.client.models.list().data[0].id
    got = server.client.embeddings.create(model=model, input=TEXTS)
    assert [np.float32(x.embedding).tolist() for x in got.data] == [np.float32(v).tolist() for v in vectors(server, TEXTS)]
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        server.client.embeddings.create(model=model, input="x", dimensions=made.EMBD + 1)
    with pytest.raises(openai.BadRequestError, match="embeddings alone"):
        server.client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])


def test_same_bits_alone_and_amid_others(server):
    alone = vectors(server, TEXTS[2], encoding_format="base64")

    def crowd(i):
        return vectors(server, [f"{i} {k} {TEXTS[k % 4]}" for k in range(100)] + [TEXTS[2]], encoding_format="base64")[100:]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(crowd, range(4))) == [alone] * 4


def test_it_generates_nothing(server):
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    for path, body in (("/v1/completions", {"prompt": "hello"}), ("/v1/chat/completions", chat), ("/v1/responses", {"input": "hello"}),
                       ("/v1/messages", {**chat, "max_tokens": 5}), ("/completion", {"prompt": "hello"})):
        r = server.http.post(path, json=body)
        assert r.status_code == 400 and "embeddings alone" in r.text and "/v1/embeddings" in r.text, (path, r.text)
    r = vramd("generate", "--model", str(FOLDER / "bert.gguf"), "hello")
    assert r.returncode != 0 and "is an encoder" in r.stderr


def test_what_is_refused(server):
    for body, param in (({}, "input"), ({"input": []}, "input"), ({"input": [[]]}, "input"), ({"input": [1, 96]}, "input"),
                        ({"input": ["a", 3]}, "input"), ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
                        ({"input": "x", "dimensions": made.EMBD + 1}, "dimensions"), ({"input": ["x"] * 2049}, "input")):
        r = server.http.post("/v1/embeddings", json=body)
        assert r.status_code == 400 and r.json()["error"]["param"] == param, (body, r.text)
    r = server.http.post("/v1/embeddings", json={"input": [5] * (made.MAX + 1)})
    assert r.status_code == 400 and r.json()["error"]["type"] == "exceed_context_size_error"
    assert len(vectors(server, [5] * made.MAX)) == 1  # exactly what fits
    assert len(vectors(server, "x", response_format={"type": "json_object"}, n=3, stream=True, echo=True)) == 1  # of no effect
    r = server.http.post("/v1/chat/completions/input_tokens", json={"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}})
    assert r.status_code in (200, 400), r.text
    assert len(vectors(server, [5] * (made.MAX + 1), truncate_prompt_tokens=20)) == 1


def test_memory_is_as_planned_and_has_no_cache(server):
    vectors(server, TEXTS)
    m = server.memory()
    classes = {c["class"]: c for c in m["classes"]}
    for c in ("kv", "logits", "grammar"):
        assert classes.get(c, {}).get("plan_bytes", 0) == classes.get(c, {}).get("ledger_bytes", 0) == 0
    for c in ("weights", "activations", "workspace", "scheduler", "tokenizer"):
        assert classes[c]["plan_bytes"] == classes[c]["ledger_bytes"] > 0, c
    assert m["kv"]["blocks"] == 0


def test_the_budget_moves():
    d = Daemon("--model", str(FOLDER / "bert.gguf"), "--memory-max", "200MiB", "--memory", "100MiB", *OPTIONS)
    try:
        before = vectors(d, TEXTS)
        for n in (150 << 20, 90 << 20):
            r = d.http.put("/v1/memory", json={"budget_bytes": n})
            assert r.status_code == 200, r.text
            assert d.memory()["budget_bytes"] == n and vectors(d, TEXTS) == before
        r = d.http.put("/v1/memory", json={"budget_bytes": 1 << 20})
        assert r.status_code == 409 and d.memory()["budget_bytes"] == 90 << 20, r.text
    finally:
        d.stop()


def test_a_cosine_ranks(server):
    query, documents = "Paris", ["the capital of France", "Paris", "a dog sat on the mat"]
    r = server.http.post("/rerank", json={"query": query, "documents": documents})
    assert r.status_code == 200, r.text
    q, *d = (np.array(v) for v in vectors(server, [query, *documents]))
    got = r.json()["results"]
    assert got[0]["index"] == 1 and abs(got[0]["relevance_score"] - 1) < 1e-6
    for x in got:
        assert abs(x["relevance_score"] - d[x["index"]] @ q) < 1e-6


# ---- a cross-encoder ----


def pair(d, query, document):
    return (d.tokens(query, add_special_tokens=True), d.tokens(document, add_special_tokens=False) + [3])


def test_scores_are_those_of_the_formulas(ranker):
    query, documents = "capital of France?", ["Paris is it", {"text": "the dog"}, "bread " * 40, ""]
    r = ranker.http.post("/v1/rerank", json={"query": query, "documents": documents, "model": None})
    assert r.status_code == 200, r.text
    body, (m, w), n = r.json(), weights("bert-rank"), 0
    assert [x["relevance_score"] for x in body["results"]] == sorted((x["relevance_score"] for x in body["results"]), reverse=True)
    assert sorted(x["index"] for x in body["results"]) == [0, 1, 2, 3]
    for x in body["results"]:
        text = documents[x["index"]]
        text = text if isinstance(text, str) else text["text"]
        first, second = pair(ranker, query, text)
        raw = made.vectors(m, w, np.array(first + second), len(first))[0][0]
        assert abs(x["relevance_score"] - 1 / (1 + np.exp(-raw))) < 1e-5 and x["document"] == {"text": text}
        n += len(first) + len(second)
    assert body["usage"] == {"prompt_tokens": n, "total_tokens": n} and body["id"].startswith("rerank-")


def test_top_n_and_without_documents(ranker):
    ask = {"query": "cat", "documents": ["dog", "mat", "river"]}
    whole = ranker.http.post("/v2/rerank", json=ask).json()["results"]
    cut = ranker.http.post("/rerank", json={**ask, "top_n": 2, "return_documents": False}).json()["results"]
    assert cut == [{k: x[k] for k in ("index", "relevance_score")} for x in whole[:2]]


def test_what_a_ranker_refuses(ranker):
    good = {"query": "cat", "documents": ["dog"]}
    for change, param in (({"query": None}, "query"), ({"query": ""}, "query"), ({"query": 3}, "query"), ({"documents": None}, "documents"),
                          ({"documents": []}, "documents"), ({"documents": "dog"}, "documents"), ({"documents": [3]}, "documents"),
                          ({"documents": [{"title": "x"}]}, "documents"), ({"top_n": 0}, "top_n"), ({"documents": ["x"] * 2049}, "documents"),
                          ({"return_documents": 1}, "return_documents")):
        r = ranker.http.post("/v1/rerank", json={**good, **change})
        assert r.status_code == 400 and r.json()["error"]["param"] == param, (change, r.text)
    long = {**good, "documents": ["bread " * 700, "dog"]}
    r = ranker.http.post("/v1/rerank", json=long)
    assert r.status_code == 400 and r.json()["error"]["param"] == "documents", r.text
    r = ranker.http.post("/v1/rerank", json={**long, "truncate_prompt_tokens": -1})
    assert r.status_code == 200 and r.json()["usage"]["prompt_tokens"] == made.MAX + 5, r.text
    r = ranker.http.post("/v1/embeddings", json={"input": "x"})
    assert r.status_code == 400 and "/v1/rerank" in r.text
    r = ranker.http.post("/v1/completions", json={"prompt": "x"})
    assert r.status_code == 400 and "scores of pairs" in r.text


def test_a_decoder_ranks_only_where_it_embeds(daemon):
    r = daemon.http.post("/v1/rerank", json={"query": "a", "documents": ["b"]})
    assert r.status_code == 400 and "neither scores" in r.text


# ---- options and folders ----


def test_options():
    model = str(FOLDER / "bert.gguf")
    assert "one step" in refused("--model", model, "--max-num-batched-tokens", "100").stderr
    assert "attention" in refused("--model", model, "--attention", "unfused").stderr
    assert "classifier" in refused("--model", str(FOLDER / "bert-rank"), "--embeddings", "mean").stderr
    assert "decoder" in refused("--model", MODEL, "--embeddings", "cls").stderr
    for word, row in (("mean", 0), ("cls", 1), ("last", 2)):
        d = Daemon("--model", model, "--pooling", word, *OPTIONS)
        try:
            m, w = weights("bert")
            want = made.vectors(m, w, np.array(d.tokens(TEXTS[0], add_special_tokens=True)), 0)[row]
            assert np.abs(np.array(vectors(d, TEXTS[0])[0]) - want / np.linalg.norm(want)).max() < 1e-5
        finally:
            d.stop()


def test_the_plan_says_that_there_is_no_cache():
    plan = vramd("plan", str(FOLDER / "nomic-bert"))
    assert plan.returncode == 0 and "no KV cache: a step takes whole texts" in plan.stdout, plan.stdout + plan.stderr
    assert "\nkv " not in plan.stdout and "logits" not in plan.stdout
    j = json.loads(vramd("plan", "--json", str(FOLDER / "nomic-bert")).stdout)
    assert j["verdict"]["fits"] and j["runnable"]


@pytest.mark.parametrize("change, said", [
    ({"1_Pooling/config.json": {"pooling_mode_max_tokens": True}}, "pooling_mode_max_tokens"),
    ({"1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}, "one mode"),
    ({"modules.json": [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]}, "models.Dense"),
    ({"modules.json": [{"type": "sentence_transformers.models.Pooling", "path": "../x"}]}, "folder beside"),
    ({"config.json": {**made.config(made.MODELS["bert"]), "hidden_act": "relu"}}, "hidden_act"),
    ({"config.json": {**made.config(made.MODELS["bert"]), "position_embedding_type": "relative_key"}}, "position_embedding_type"),
    ({"model.safetensors": None, "model.onnx": ""}, "ONNX"),
])
def test_folders_that_are_refused(tmp_path, change, said):
    shutil.copytree(FOLDER / "bert", tmp_path / "m")
    for name, text in change.items():
        if text is None:
            (tmp_path / "m" / name).unlink()
        else:
            (tmp_path / "m" / name).write_text(text if isinstance(text, str) else json.dumps(text))
    assert said in refused("--model", str(tmp_path / "m")).stderr


def test_a_folder_without_modules_has_the_mean(tmp_path):
    shutil.copytree(FOLDER / "bert", tmp_path / "bert")
    (tmp_path / "bert" / "modules.json").unlink()
    d = Daemon("--model", str(tmp_path / "bert"), *OPTIONS)
    try:
        m, w = weights("bert")
        want = made.vectors(m, w, np.array(d.tokens(TEXTS[0], add_special_tokens=True)), 0)[0]
        assert np.abs(np.array(vectors(d, TEXTS[0])[0]) - want / np.linalg.norm(want)).max() < 1e-5
    finally:
        d.stop()


def test_a_folder_with_vocab_txt_is_the_same(tmp_path, server):
    shutil.copytree(FOLDER / "bert", tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").unlink()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(made.TEXTS) + "\n")
    d = Daemon("--model", str(tmp_path / "bert"), *OPTIONS)
    try:
        for text in TEXTS:
            assert d.tokens(text, add_special_tokens=True) == server.tokens(text, add_special_tokens=True)
    finally:
        d.stop()


def test_beside_a_chat_model(tmp_path):
    path = tmp_path / "vramd.conf"
    path.write_text(f"[model]\nmax_model_len = 256\n[model chat]\nfile = {MODEL}\n[model vectors]\nfile = {FOLDER}/bert\n"
                    f"activation_dtype = f32\n[model scores]\nfile = {FOLDER}/bert-rank.gguf\n")
    d = Daemon("--config", str(path), "--threads", "2", model=None)
    try:
        assert len(vectors(d, TEXTS, model="vectors")) == len(TEXTS) and d.complete("x", model="chat").status_code == 200
        r = d.http.post("/v1/rerank", json={"model": "scores", "query": "cat", "documents": ["dog", "cat"]})
        assert r.status_code == 200 and len(r.json()["results"]) == 2, r.text
        for model, path, said in (("chat", "/v1/embeddings", "no embeddings"), ("vectors", "/v1/completions", "embeddings alone"),
                                  ("scores", "/v1/embeddings", "not embeddings"), ("chat", "/v1/rerank", "neither")):
            body = {"model": model, "input": "x", "prompt": "x", "query": "x", "documents": ["x"]}
            r = d.http.post(path, json=body)
            assert r.status_code == 400 and said in r.text, (model, path, r.text)
    finally:
        d.stop()


# ---- a real model ----


def test_minilm_gives_the_vectors_of_its_formulas():
    """tests/golden/minilm.json: by make_minilm.py, in float64 from the same weights."""
    got = subprocess.run([str(ROOT / "tools/get-model.sh"), "--cached", "minilm"], text=True, capture_output=True, timeout=300)
    model = os.environ.get("VRAMD_TEST_MINILM", got.stdout.strip())
    if not model:
        pytest.skip("tools/get-model.sh minilm has not fetched the model")
    golden = json.loads((ROOT / "tests/golden/minilm.json").read_text())
    d = Daemon("--model", model, "--threads", "2")
    try:
        for x, v in zip(golden, vectors(d, [x["text"] for x in golden])):
            want = np.array(struct.unpack("<384f", base64.b64decode(x["vector"])), float)
            assert d.tokens(x["text"], add_special_tokens=True) == x["tokens"]
            cosine = want @ np.array(v) / np.linalg.norm(want) / np.linalg.norm(v)
            print(x["text"][:30], 1 - cosine)
            assert cosine > 0.99999
    finally:
        d.stop()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
