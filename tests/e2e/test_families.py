"""Families that are planned and not runnable yet: what the plan says of a file, that serve refuses it with the same list,
and that the table of docs/models.md is what the plans say."""

import json
import subprocess
import sys

import gguf
import numpy as np
import pytest
from harness import BINARY, ROOT
from test_plan import SCHEMA
from tiny_model import VOCABULARY

MISSING = ["forward_pass"]
UNSUPPORTED = 6  # exit code


@pytest.fixture
def biased(tmp_path):
    """Llama with biases in its feed-forward parts, which no forward pass has; and a block of a vision tower."""
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


def test_a_file_that_no_engine_runs_is_planned(biased):
    r = subprocess.run([BINARY, "plan", biased, "--json", "--backend", "cpu"], text=True, capture_output=True)
    assert r.returncode == 0, r.stderr
    doc = json.loads(r.stdout)
    SCHEMA.validate(doc)
    assert doc["runnable"] is False and doc["missing"] == MISSING and doc["not_loaded_bytes"] == 4 * 8 * 8
    assert doc["kv"]["bytes_per_token"] == 2 * 2 * 2 * 16 * 2
    text = subprocess.run([BINARY, "plan", biased, "--backend", "cpu"], text=True, capture_output=True).stdout
    assert "planned, not runnable yet: the cpu engine lacks forward_pass\n" in text and "not loaded: 256 bytes" in text


@pytest.mark.parametrize("command", [["serve"], ["generate", "a"]])
def test_serve_refuses_it_with_the_same_list(biased, command):
    r = subprocess.run([BINARY, *command, "--model", biased, "--backend", "cpu"], text=True, capture_output=True)
    assert r.returncode == UNSUPPORTED and "architecture llama" in r.stderr
    assert f"the cpu engine lacks {', '.join(MISSING)}" in r.stderr


def test_a_folder_of_such_a_model_is_planned_by_its_config(tmp_path):
    config = {"model_type": "llama", "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 256, "mlp_bias": True,
              "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "F32", "shape": [96, 64], "data_offsets": [0, 4 * 96 * 64]},
                         "model.layers.0.mlp.up_proj.bias": {"dtype": "F32", "shape": [1], "data_offsets": [24576, 24580]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * 96 * 64 + 4))
    for path in (tmp_path / "config.json", tmp_path):
        r = subprocess.run([BINARY, "plan", path, "--json", "--backend", "cpu"], text=True, capture_output=True)
        assert r.returncode == 0, r.stderr
        assert json.loads(r.stdout)["missing"] == MISSING
    r = subprocess.run([BINARY, "serve", "--model", tmp_path, "--backend", "cpu"], text=True, capture_output=True)
    assert r.returncode == UNSUPPORTED and "the cpu engine lacks forward_pass" in r.stderr


def test_the_table_of_families_is_what_the_plans_say():
    r = subprocess.run([sys.executable, ROOT / "tools/model_table.py", "--families", "--check", BINARY], text=True, capture_output=True)
    assert r.returncode == 0, r.stderr
