"""The subcommands, the options' three sources, and what is refused."""

import json
import os
import subprocess

import pytest

from harness import BINARY, MODEL, Daemon, vramd


@pytest.mark.parametrize("words", [("plan", MODEL), ("generate", "--model", MODEL, "--max-tokens", "2", "a"),
                                   ("inspect", MODEL), ("serve", "--print-sample"), ("version",)])
def test_output_that_cannot_be_written_is_an_error(words):
    with open("/dev/full", "w") as full:
        r = subprocess.run([BINARY, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert r.returncode == 4 and "writing stdout: No space left on device" in r.stderr


def test_check_prints_what_is_in_force_and_starts_nothing():
    r = vramd("serve", "--check", "--model", MODEL, "--max-num-seqs", "7")
    assert r.returncode == 0 and "max_num_seqs = 7" in r.stdout, r.stdout + r.stderr


def test_options_come_from_file_environment_and_flag(tmp_path):
    f = tmp_path / "vramd.conf"
    f.write_text(f"[model]\nmodel = {MODEL}\n[scheduler]\nmax_num_seqs = 3\nmax_waiting = 33\n[engine]\nthreads = 1\n")
    env = {**os.environ, "VRAMD_MAX_NUM_SEQS": "5", "VRAMD_THREADS": "2"}
    r = vramd("serve", "--check", "--config", str(f), "--threads", "1", env=env)
    assert r.returncode == 0, r.stderr
    assert "max_waiting = 33" in r.stdout and "max_num_seqs = 5" in r.stdout and "threads = 1" in r.stdout


@pytest.mark.parametrize("text,parts", [
    ("[server]\nprot = 1\n", ["prot", "line 2"]), ("[server]\nport = many\n", ["port", "many", "line 2"]),
    ("[server]\nport = 70000\n", ["port", "70000", "65535", "line 2"]), ("[memory]\nblock_size = 17\n", ["block_size"]),
    ("[kitchen]\nport = 1\n", ["line"])])
def test_a_wrong_file_is_refused_by_name_and_line(tmp_path, text, parts):
    f = tmp_path / "vramd.conf"
    f.write_text(text)
    r = vramd("serve", "--check", "--config", str(f), "--model", MODEL)
    assert r.returncode == 2 and all(p in r.stderr for p in parts), r.stderr


def test_the_sample_file_is_valid_and_says_the_defaults(tmp_path):
    f = tmp_path / "vramd.conf"
    f.write_text(vramd("serve", "--print-sample").stdout)
    with_file = vramd("serve", "--check", "--config", str(f), "--model", MODEL)
    without = vramd("serve", "--check", "--model", MODEL)
    assert with_file.returncode == 0 and with_file.stdout == without.stdout


def test_unknown_options_get_the_nearest_known():
    r = vramd("serve", "--max-num-seq", "3", "--model", MODEL)
    assert r.returncode == 2 and "max-num-seqs" in r.stderr.replace("_", "-")


def test_spellings_of_other_servers_are_understood():
    r = vramd("serve", "--check", "-m", MODEL, "--ctx-size", "512", "--parallel", "4", "--alias", "tiny")
    assert r.returncode == 0, r.stderr
    for line in ("max_model_len = 512", "max_num_seqs = 4", "served_model_name = tiny"):
        assert line in r.stdout


def test_plan_prints_a_table_and_refuses_by_name(tmp_path):
    r = vramd("plan", MODEL)
    assert r.returncode == 0 and "weights" in r.stdout and "KV cache" in r.stdout
    r = vramd("plan", MODEL, "--memory", "50MiB")
    assert r.returncode == 7 and "class kv" in r.stderr and "smallest budget that works" in r.stderr
    r = vramd("plan", MODEL, "--weights", "bf16")
    assert r.returncode == 2 and "--weights is for a config.json" in r.stderr
    config = tmp_path / "config.json"
    config.write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0}))
    r = vramd("plan", str(config), "--weights", "bf16", "--json")
    plan = json.loads(r.stdout)
    # Llama-3-8B: 8,030,261,248 parameters, 131,072 bytes of KV a token at 16 bits.
    weights = sum(t["bytes"] for t in plan["terms"] if t["class"] == "weights")
    assert abs(weights - 2 * 8030261248) < 4e6 and plan["kv"]["bytes_per_token"] == 131072


def test_inspect_shows_metadata_and_tensors():
    r = vramd("inspect", MODEL)
    assert r.returncode == 0 and "general.architecture" in r.stdout and "blk.0.attn_q.weight" in r.stdout
    doc = json.loads(vramd("inspect", "--json", MODEL).stdout)
    assert len(doc["tensors"]) == 272


def test_tokenize_shows_the_prompt_of_a_chat_as_the_server_makes_it(daemon):
    body = {"messages": [{"role": "system", "content": "Be <|im_end|> brief"}, {"role": "user", "content": "Grüße\n"}]}
    for more in ({}, {"add_generation_prompt": False}, {"chat_template": "{{ messages[0].content }}<|im_end|>"}):
        ask = {**body, **more}
        want = None if "chat_template" in more else daemon.http.post("/apply-template", json={**ask, "tokens": True}).json()
        text, ids = (vramd("tokenize", MODEL, flag, "--json", input=json.dumps(ask)) for flag in ("--prompt", "--chat"))
        if want:
            assert (json.loads(text.stdout), json.loads(ids.stdout)) == (want["prompt"], want["tokens"])
        assert vramd("tokenize", MODEL, "--prompt", input=json.dumps(ask)).stdout == json.loads(text.stdout)
    assert json.loads(text.stdout) == "Be <|im_end|> brief<|im_end|>" and json.loads(ids.stdout).count(2) == 1
    r = vramd("tokenize", MODEL, "--chat", input='{"messages": 1}')
    assert r.returncode == 2 and "messages must be a list" in r.stderr
    assert "exclude each other" in vramd("tokenize", MODEL, "--chat", "--decode", input="").stderr


def test_tokenize_and_generate_agree_with_the_server(daemon):
    text = "Grüße aus 東京! 🎉 def f(x):\n\treturn x  # ok"
    r = vramd("tokenize", "--json", MODEL, input=text)
    assert json.loads(r.stdout) == daemon.tokens(text)
    assert daemon.http.post("/detokenize", json={"tokens": daemon.tokens(text)}).json()["prompt"] == text
    a = vramd("generate", "--raw", "--model", MODEL, "--max-tokens", "24", "--temperature", "0.9", "--seed", "4", "The sea")
    b = daemon.say("The sea", max_tokens=24, temperature=0.9, seed=4)
    assert a.returncode == 0 and a.stdout == b + "\n"


def test_two_threads_and_one_say_the_same(daemon):
    d = Daemon("--threads", "1", "--max-num-batched-tokens", "48", "--max-model-len", "1024")
    try:
        for prompt in ("The history of the bridge", [11] * 300):
            assert d.choice(prompt, max_tokens=32, logprobs=3) == daemon.choice(prompt, max_tokens=32, logprobs=3)
    finally:
        d.stop()


def test_slow_instruction_sets_say_the_same(daemon):
    for isa in ("plain", "avx2"):
        d = Daemon("--cpu-isa", isa, "--max-model-len", "256")
        try:
            assert d.choice("The history of the bridge", max_tokens=12, logprobs=3) == \
                daemon.choice("The history of the bridge", max_tokens=12, logprobs=3)
        finally:
            d.stop()


@pytest.mark.parametrize("file,part", [(b"", "truncated"), (b"GGUF", ""), (b"GGUF\x03\0\0\0" + b"\xff" * 64, ""),
                                       (b"not a model at all" * 10, "")])
def test_hostile_files_are_refused(tmp_path, file, part):
    f = tmp_path / "bad.gguf"
    f.write_bytes(file)
    for command in (["inspect", str(f)], ["serve", "--model", str(f)], ["plan", str(f)]):
        r = vramd(*command)
        assert r.returncode not in (0, -6, -11, 134, 139) and "bad.gguf" in r.stderr, (command, r.stderr)
