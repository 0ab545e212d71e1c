"""What the plan says of a file that an engine does not run (that serve refuses it with the same list: test_cuda_shim.py), that biases of
feed-forward parts are planned and served, and that the table of docs/models.md is what the plans say."""

import json
import subprocess
import sys

import gguf
import numpy as np
import pytest
from harness import BINARY, ROOT
from test_plan import SCHEMA
from tiny_model import VOCABULARY

LATENT = ROOT / "tests/golden/families/deepseek2.gguf"  # no latent attention on CUDA


@pytest.fixture
def biased(tmp_path):
    """Llama with biases in its feed-forward parts; and a block of a vision tower."""
    path, h = tmp_path / "biased.gguf", 64
    w = gguf.GGUFWriter(path, "llama")
    vocabulary = gguf.GGUFReader(VOCABULARY)
    vocab = len(vocabulary.fields["tokenizer.ggml.tokens"].contents())
    for f in vocabulary.fields.values():
        if f.name.startswith("tokenizer."):
            w.add_key_value(f.name, f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
    w.add_block_count(2)
    w.add_context_length(256)
    w.add_embedding_length(h)
    w.add_feed_forward_length(96)
    w.add_head_count(4)
    w.add_head_count_kv(2)

    def tensor(name, *shape):
        w.add_tensor(name, np.zeros(shape, np.float32))

    tensor("token_embd.weight", vocab, h)
    tensor("output_norm.weight", h)
    for i in range(2):
        for name, *shape in (("attn_norm", h), ("ffn_norm", h), ("ffn_gate", 96, h), ("ffn_up", 96, h), ("ffn_down", h, 96),
                             ("attn_q", h, h), ("attn_k", 32, h), ("attn_v", 32, h), ("attn_output", h, h)):
            tensor(f"blk.{i}.{name}.weight", *shape)
        for name, n in (("gate", 96), ("up", 96), ("down", h)):
            tensor(f"blk.{i}.ffn_{name}.bias", n)
    tensor("v.blk.0.attn_q.weight", 8, 8)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def test_biases_and_what_is_not_loaded_are_planned(biased):
    r = subprocess.run([BINARY, "plan", biased, "--json", "--backend", "cpu"], text=True, capture_output=True)
    assert r.returncode == 0, r.stderr
    doc = json.loads(r.stdout)
    SCHEMA.validate(doc)
    assert doc["runnable"] is True and doc["not_loaded_bytes"] == 4 * 8 * 8
    assert doc["kv"]["bytes_per_token"] == 2 * 2 * 2 * 16 * 2
    text = subprocess.run([BINARY, "plan", biased, "--backend", "cpu"], text=True, capture_output=True).stdout
    assert "not loaded: 256 bytes" in text
    r = subprocess.run([BINARY, "generate", "a", "--model", biased, "--backend", "cpu", "--max-tokens", "2"], text=True, capture_output=True)
    assert r.returncode == 0, r.stderr


def test_a_file_that_an_engine_does_not_run_is_planned():
    words = [BINARY, "plan", LATENT, "--device-memory", "8GiB"]
    r = subprocess.run([*words, "--json"], text=True, capture_output=True)
    assert r.returncode == 0, r.stderr
    doc = json.loads(r.stdout)
    SCHEMA.validate(doc)
    assert doc["runnable"] is False and doc["missing"] == ["linear_by_head", "latent_append", "latent_kv"]
    text = subprocess.run(words, text=True, capture_output=True).stdout
    assert "planned, not runnable yet: the cuda engine lacks linear_by_head, latent_append, latent_kv\n" in text


def test_a_folder_with_biases_is_planned_by_its_config(tmp_path):
    def plan(**more):
        config = {"model_type": "llama", "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 256, "tie_word_embeddings": True}
        (tmp_path / "config.json").write_text(json.dumps(config | more))
        r = subprocess.run([BINARY, "plan", tmp_path / "config.json", "--json", "--backend", "cpu"], text=True, capture_output=True)
        assert r.returncode == 0, r.stderr
        return json.loads(r.stdout)

    biased = plan(mlp_bias=True)
    assert biased["runnable"]
    assert biased["model"]["n_params"] - plan()["model"]["n_params"] == 2 * (96 + 96 + 64)


def test_the_table_of_families_is_what_the_plans_say():
    r = subprocess.run([sys.executable, ROOT / "tools/model_table.py", "--families", "--check", BINARY], text=True, capture_output=True)
    assert r.returncode == 0, r.stderr
