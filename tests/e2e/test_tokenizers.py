"""SentencePiece from end to end: `vramd tokenize` on a file that has a vocabulary alone, and a server whose model,
one layer of random numbers, has the same."""

import json

import gguf
import numpy as np
import pytest

from harness import ROOT, Daemon, vramd

SPM = ROOT / "tests" / "golden" / "tokenizer" / "spm.gguf"
MIXED = ROOT / "tests" / "golden" / "tokenizer" / "mixed.gguf"
TEXTS = ["Once upon a time, the planner counted every byte.", "  two spaces before", "naïve 漢字 🦙\n\ttab", "", "<s>x"]
WIDTH, HIDDEN = 64, 128


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    path = tmp_path_factory.mktemp("spm") / "tiny.gguf"
    fields = gguf.GGUFReader(SPM).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(256)
    w.add_embedding_length(WIDTH)
    w.add_block_count(1)
    w.add_feed_forward_length(HIDDEN)
    w.add_head_count(2)
    w.add_head_count_kv(2)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores(fields["tokenizer.ggml.scores"].contents())
    w.add_token_types(fields["tokenizer.ggml.token_type"].contents())
    rng = np.random.default_rng(1)
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,), "output": (len(tokens), WIDTH),
              "blk.0.attn_norm": (WIDTH,), "blk.0.ffn_norm": (WIDTH,), "blk.0.ffn_gate": (HIDDEN, WIDTH),
              "blk.0.ffn_up": (HIDDEN, WIDTH), "blk.0.ffn_down": (WIDTH, HIDDEN),
              **{f"blk.0.attn_{m}": (WIDTH, WIDTH) for m in ("q", "k", "v", "output")}}
    for name, shape in shapes.items():
        w.add_tensor(name + ".weight", rng.standard_normal(shape).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    d = Daemon("--model", str(path), "--max-num-seqs", "2")
    yield d
    d.stop()


def ids_of(file, text, *options):
    r = vramd("tokenize", "--json", *options, str(file), input=text)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


@pytest.mark.parametrize("file", [SPM, MIXED], ids=["spm", "bpe"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_vocabulary_alone_tokenizes_and_decodes(file, text):
    ids = ids_of(file, text, "--no-special")
    back = vramd("tokenize", "--decode", "--no-special", str(file), input=json.dumps(ids))
    assert back.returncode == 0 and back.stdout == text
    if file == SPM:
        assert ids_of(file, text) == [1] + (ids if text != "<s>x" else ids_of(file, "x", "--no-special"))


@pytest.mark.parametrize("text", TEXTS)
def test_the_server_and_the_command_agree_and_the_text_comes_back(daemon, text):
    ids = daemon.tokens(text)
    assert ids == ids_of(SPM, text)
    assert daemon.tokens(text, add_special_tokens=False, parse_special=False) == ids_of(SPM, text, "--no-special")
    back = daemon.http.post("/detokenize", json={"tokens": ids_of(SPM, text, "--no-special")}).json()
    assert back["prompt"] == back["content"] == text


def test_an_answer_is_the_same_whole_and_streamed_and_keeps_its_spaces(daemon):
    """Random weights say tokens of every kind, bytes and beginnings of words among them."""
    body = {"prompt": "Once", "max_tokens": 60, "temperature": 1.5, "seed": 7, "ignore_eos": True, "logprobs": 0}
    choice = daemon.http.post("/v1/completions", json=body).json()["choices"][0]
    streamed = "".join(e["choices"][0]["text"] for e in daemon.events("/v1/completions", body) if e["choices"])
    assert choice["text"] == streamed != ""
    assert " " in streamed.strip()


def test_an_echoed_prompt_of_ids_has_no_space_before_it(daemon):
    ids = daemon.tokens("Once upon a time", add_special_tokens=False)
    r = daemon.http.post("/v1/completions", json={"prompt": ids, "max_tokens": 1, "echo": True, "temperature": 0})
    assert r.json()["choices"][0]["text"].startswith("Once upon a time")
