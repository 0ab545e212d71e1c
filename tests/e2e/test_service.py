"""The built daemon from outside: real model, real client."""

import concurrent.futures
import json
import re
import signal
import subprocess

import pytest

from harness import BINARY, MODEL, OPTIONS, SANITIZED, Daemon

WORDS = ["river", "engine", "winter", "garden", "paper", "signal", "castle", "harbour"]


def test_a_completion_is_the_same_streamed_or_not(daemon):
    model = daemon.client.models.list().data[0].id
    args = dict(model=model, prompt="The capital of France is", max_tokens=20, temperature=0)
    whole = daemon.client.completions.create(**args)
    assert "Paris" in whole.choices[0].text
    assert whole.usage.prompt_tokens == 5 and whole.usage.completion_tokens <= 20
    parts = list(daemon.client.completions.create(**args, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].text for p in parts if p.choices) == whole.choices[0].text
    assert parts[-1].usage.total_tokens == whole.usage.total_tokens
    assert len({p.id for p in parts}) == 1


def test_a_chat_is_the_same_streamed_or_not(daemon):
    model = daemon.client.models.list().data[0].id
    args = dict(model=model, messages=[{"role": "user", "content": "Name a colour."}], max_tokens=20, temperature=0)
    whole = daemon.client.chat.completions.create(**args)
    assert whole.choices[0].message.content
    parts = list(daemon.client.chat.completions.create(**args, stream=True))
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(p.choices[0].delta.content or "" for p in parts) == whole.choices[0].message.content
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_prompts_as_lists_and_token_ids(daemon):
    ids = daemon.http.post("/tokenize", json={"prompt": "Once upon a time"}).json()["tokens"]
    assert daemon.http.post("/detokenize", json={"tokens": ids}).json()["prompt"] == "Once upon a time"
    one = daemon.complete("Once upon a time").json()["choices"][0]["text"]
    assert daemon.complete(ids).json()["choices"][0]["text"] == one
    both = daemon.complete(["Once upon a time", "Winter is"]).json()["choices"]
    assert [c["index"] for c in both] == [0, 1] and both[0]["text"] == one
    assert daemon.complete([ids, ids]).json()["choices"][1]["text"] == one
    assert len(daemon.complete("Once", n=3, temperature=1, seed=5).json()["choices"]) == 3


def test_seeds_logprobs_bias_and_penalties(daemon):
    hot = dict(temperature=1.0, max_tokens=24)
    a, b, c = (daemon.complete("My favourite", seed=s, **hot).json()["choices"][0]["text"] for s in (1, 1, 2))
    assert a == b and a != c
    lp = daemon.complete("The sky is", logprobs=3, max_tokens=4).json()["choices"][0]["logprobs"]
    assert len(lp["tokens"]) == len(lp["token_logprobs"]) == len(lp["top_logprobs"]) == 4
    for token, p, top in zip(lp["tokens"], lp["token_logprobs"], lp["top_logprobs"]):
        assert p <= 0 and max(top.values()) == pytest.approx(p) and top[token] == pytest.approx(p)
    ids = daemon.http.post("/tokenize", json={"prompt": " Paris"}).json()["tokens"]
    banned = daemon.complete("The capital of France is", logit_bias={str(ids[0]): -100}).json()["choices"][0]["text"]
    assert not banned.startswith(" Paris")
    plain = daemon.complete("a a a a a a a a", max_tokens=32).json()["choices"][0]["text"]
    assert daemon.complete("a a a a a a a a", max_tokens=32, repetition_penalty=2.0).json()["choices"][0]["text"] != plain


def test_stop_strings_end_the_text_and_are_not_leaked(daemon):
    whole = daemon.complete("Once upon a time", max_tokens=60).json()["choices"][0]["text"]
    word = whole.split()[6]
    for stream in (False, True):
        r = daemon.complete("Once upon a time", max_tokens=60, stop=[word], stream=stream)
        if stream:
            docs = [json.loads(x[6:]) for x in r.text.split("\n\n") if x.startswith("data: {")]
            text, reason = "".join(d["choices"][0]["text"] for d in docs), docs[-1]["choices"][0]["finish_reason"]
            assert r.text.endswith("data: [DONE]\n\n")
        else:
            choice = r.json()["choices"][0]
            text, reason = choice["text"], choice["finish_reason"]
        assert text == whole[: whole.index(word)] and reason == "stop"


def test_32_at_once_say_what_each_says_alone(daemon):
    prompts = [f"The {WORDS[i % 8]} number {i} of the {WORDS[(i * 3 + 1) % 8]} was" for i in range(32)]
    alone = [daemon.complete(p, max_tokens=12).json()["choices"][0]["text"] for p in prompts]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda p: daemon.complete(p, max_tokens=12).json()["choices"][0]["text"], prompts))
    assert together == alone
    daemon.wait_free()


def test_a_disconnect_frees_the_blocks(daemon):
    with daemon.http.stream("POST", "/v1/completions", json={
            "prompt": "Count:", "max_tokens": 900, "ignore_eos": True, "stream": True}) as r:
        next(r.iter_lines())
    daemon.wait_free()


ERRORS = [
    ("POST", "/v1/completions", b"{", 400, "invalid_request_error", None),
    ("POST", "/v1/completions", {"prompt": "x", "temperature": "hot"}, 400, "invalid_request_error", "temperature"),
    ("POST", "/v1/completions", {"prompt": "x", "top_p": 7}, 400, "invalid_request_error", "top_p"),
    ("POST", "/v1/completions", {"prompt": "x", "max_tokens": 100000}, 400, "exceed_context_size_error", None),
    ("POST", "/v1/completions", {"prompt": "x " * 3000}, 400, "exceed_context_size_error", None),
    ("POST", "/v1/completions", {"prompt": "x", "model": "other"}, 404, "not_found_error", "model"),
    ("POST", "/v1/completions", {"prompt": "x", "stream_options": {"include_usage": True}}, 400,
     "invalid_request_error", "stream_options"),
    ("POST", "/v1/completions", {"prompt": "x", "suffix": "y"}, 400, "invalid_request_error", "suffix"),
    ("GET", "/v1/completions", None, 405, "invalid_request_error", None),
    ("GET", "/nothing", None, 404, "not_found_error", None),
    ("POST", "/v1/completions", b"x" * (5 << 20), 413, "invalid_request_error", None),
]


@pytest.mark.parametrize("row", ERRORS, ids=lambda r: f"{r[3]}-{r[5]}")
def test_an_error_has_its_status_type_and_param(daemon, row):
    method, path, body, status, kind, param = row
    more = {"content": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    r = daemon.http.request(method, path, **more)
    assert r.status_code == status, r.text
    error = r.json()["error"]
    assert error["type"] == kind and error["code"] == ("unsupported_parameter" if param == "suffix" else status)
    if param:
        assert error["param"] == param
    if kind == "exceed_context_size_error":
        assert "maximum context length is 1024 tokens" in error["message"] and error["n_ctx"] == 1024
    if status == 405:
        assert "POST" in r.headers["allow"]


def test_headers_too_large(daemon):
    assert daemon.http.get("/health", headers={"X-Long": "x" * 9000}).status_code == 431


def test_the_ledger_is_the_plan_and_the_kernel_agrees(daemon):
    daemon.wait_free()
    m = daemon.memory()
    exact = {c["class"]: c for c in m["classes"]}
    for name in ("weights", "kv", "activations", "logits", "workspace", "tokenizer", "grammar", "scheduler", "requests"):
        assert exact[name]["plan_bytes"] == exact[name]["ledger_bytes"], name
    assert SANITIZED or m["unaccounted_bytes"] <= (4 << 20) + sum(c["ledger_bytes"] for c in m["classes"]) * 0.002
    plan = json.loads(subprocess.check_output([BINARY, "plan", "--json", *OPTIONS, MODEL]))
    for name, c in exact.items():
        steady = sum(t["bytes"] for t in plan["terms"] if t["class"] == name)
        assert steady == c["plan_bytes"], name
    assert plan["kv"]["blocks"] == m["kv"]["blocks"]
    table = daemon.http.get("/v1/memory", headers={"Accept": "text/plain"}).text
    assert "weights" in table and "unaccounted" in table


def test_metrics_are_well_formed_and_have_the_known_names(daemon):
    text = daemon.http.get("/metrics").text
    line = re.compile(r'^[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-z_]+="[^"]*",?)*\})? [0-9eE.+-]+$')
    for row in text.splitlines():
        assert row.startswith("#") or line.match(row), row
    for name in ("vramd_memory_bytes", "vramd_memory_budget_bytes", "vramd_kv_blocks", "vllm:num_requests_running",
                 "vllm:kv_cache_usage_perc", "vllm:time_to_first_token_seconds_bucket", "vllm:cache_config_info"):
        assert name in text


def test_a_budget_too_small_is_refused_with_the_smallest_that_works():
    p = subprocess.run([BINARY, "serve", "--model", MODEL, "--memory", "100MiB", *OPTIONS], text=True,
                       stderr=subprocess.PIPE, timeout=30)
    assert p.returncode == 7
    least = int(re.search(r"smallest budget that works is ([\d,]+) bytes", p.stderr)[1].replace(",", ""))
    check = [BINARY, "serve", "--check", "--model", MODEL, *OPTIONS, "--memory"]
    assert subprocess.run(check + [str(least)], stdout=subprocess.DEVNULL).returncode == 0
    assert subprocess.run(check + [str(least - 1)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 7


def test_preemption_and_a_full_queue_change_no_text():
    d = Daemon("--max-model-len", "256", "--max-num-seqs", "8", "--kv-cache-tokens", "384", "--max-waiting", "2")
    try:
        prompts = [f"A story about a {w}:" for w in WORDS]
        alone = [d.complete(p, max_tokens=80, ignore_eos=True).json()["choices"][0]["text"] for p in prompts]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            together = list(pool.map(
                lambda p: d.complete(p, max_tokens=80, ignore_eos=True).json()["choices"][0]["text"], prompts))
        assert together == alone
        n = re.search(r"^vramd_preemptions_total\{.*\} (\d+)", d.http.get("/metrics").text, re.M)
        assert int(n[1]) > 0
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            many = list(pool.map(lambda i: d.complete("Hello", max_tokens=40, ignore_eos=True), range(24)))
        busy = [r for r in many if r.status_code == 429]
        assert busy and {r.status_code for r in many} == {200, 429}
        assert all(int(r.headers["retry-after"]) >= 1 for r in busy)
        d.wait_free()
    finally:
        d.stop()


def test_sigterm_lets_a_running_stream_end():
    d = Daemon(*OPTIONS)
    lines = []
    with d.http.stream("POST", "/v1/completions", json={
            "prompt": "Count:", "max_tokens": 60, "ignore_eos": True, "stream": True, "temperature": 0}) as r:
        for line in r.iter_lines():
            if not lines:
                d.process.send_signal(signal.SIGTERM)
            lines.append(line)
    assert "data: [DONE]" in lines
    assert d.process.wait(30) == 0
    d.stop()


def test_generate_says_what_the_server_says(daemon):
    text = daemon.complete("The capital of France is", max_tokens=20).json()["choices"][0]["text"]
    out = subprocess.check_output([BINARY, "generate", "--raw", "--model", MODEL, "--max-tokens", "20", "--temperature", "0",
                                   "The capital of France is"], text=True)
    assert out == text + "\n"


def test_commands_refuse_what_they_do_not_know():
    for command, part in ((["serve", "--prot", "1"], "prot"), (["serve", "--port", "x"], "port"),
                          (["generate", "--model", "/nonexistent.gguf", "x"], "/nonexistent.gguf"),
                          (["inspect", "/etc/passwd"], "GGUF"), (["fly"], "fly")):
        p = subprocess.run([BINARY, *command], text=True, capture_output=True, timeout=30)
        assert p.returncode != 0 and part in p.stderr, (command, p.stderr)
    ids = subprocess.check_output([BINARY, "tokenize", "--json", MODEL], input="Hello world", text=True)
    assert json.loads(ids) and subprocess.run([BINARY, "version"], capture_output=True).returncode == 0


def test_a_thousand_mixed_requests_with_disconnects_leave_nothing_behind():
    import soak

    d = Daemon("--max-model-len", "1024", "--kv-cache-tokens", "8192", "--no-log-requests")
    try:
        counts = soak.run(d.url, 1000)
        assert not [k for k in counts if k.startswith("WRONG")], counts
        assert counts["200"] > 400 and counts["400"] > 50 and counts["left"] > 20, counts
    finally:
        d.stop()
