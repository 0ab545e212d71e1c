"""Several models in one budget: sections [model NAME] of the file."""

import re
import threading
import time

import pytest

import tiny_model
from harness import Daemon, untimed, vramd

FRONT = "[model]\nmax_model_len = 256\n[scheduler]\nmax_num_seqs = 4\n[memory]\ngrammar_cache_bytes = 1MiB\nrequest_memory = 16MiB\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, layers in (("a", 2), ("b", 3), ("c", 4)):
        tiny_model.write(folder / f"{name}.gguf", "F16", layers=layers)
    return folder


def conf(folder, more="", **sections):
    """sections: name = {key: value}; the file is NAME.gguf where none is given."""
    text = FRONT + more
    for name, keys in sections.items():
        text += f"[model {name}]\n" + "".join(f"{k} = {v}\n" for k, v in {"file": folder / f"{name}.gguf", **keys}.items())
    path = folder / "vramd.conf"
    path.write_text(text)
    return str(path)


def sizes(path):
    """The table of serve --check: {name: bytes}, and those of front and budget."""
    r = vramd("serve", "--check", "--config", path)
    assert r.returncode == 0, r.stderr
    return {name.strip(): int(n.replace(",", "")) for name, n in re.findall(r"^# (\S.{29}) +([\d,]+)", r.stdout, re.M)}


def budget_of_one(folder, names="ab"):
    """So many bytes that one of these models fits, and no two of them."""
    n = sizes(conf(folder, **{x: {} for x in names}))
    budget = n["front end, vocabularies"] + max(n[x] for x in names)
    assert all(n[x] + n[y] + n["front end, vocabularies"] > budget for x in names for y in names if x != y)
    return f"memory = {budget}\n"


def serve(path, *options):
    return Daemon("--config", path, *options, model=None)


def states(d):
    return {m["id"]: m["state"] for m in d.http.get("/v1/models").json()["data"]}


def wait_state(d, name, state, seconds=30):
    end = time.monotonic() + seconds
    while states(d)[name] != state:
        assert time.monotonic() < end, (states(d), d.text())
        time.sleep(0.02)


def test_each_request_gets_the_model_that_it_names(folder):
    alone = {}
    for name in "ab":
        d = Daemon("--model", str(folder / f"{name}.gguf"), "--max-model-len", "256", "--max-num-seqs", "4")
        alone[name] = d.say("Hello", max_tokens=8)
        d.stop()
    assert alone["a"] != alone["b"]
    d = serve(conf(folder, a={}, b={}))
    try:
        assert states(d) == {"a": "ready", "b": "ready"}
        for name in "abab":
            r = d.complete("Hello", model=name, max_tokens=8).json()
            assert (r["choices"][0]["text"], r["model"]) == (alone[name], name)
        assert d.say("Hello", max_tokens=8) == alone["a"]  # the first where none is named
        r = d.complete("Hello", model="x")
        assert r.status_code == 404 and "the model x does not exist" in r.json()["error"]["message"]
        assert d.http.get("/v1/models/b").json()["id"] == "b" and d.http.get("/v1/models/x").status_code == 404
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        assert d.http.post("/v1/chat/completions", json={**chat, "model": "b"}).json()["model"] == "b"
        assert d.http.post("/tokenize", json={"model": "b", "prompt": "a"}).status_code == 200
        assert d.http.post("/v1/completions", content="{").status_code == 400
        assert d.http.get("/props?model=b").status_code == 200
        text = d.http.get("/metrics").text
        for name in "ab":
            assert re.search(rf'^vramd_generated_tokens_total{{model_name="{name}"}} [1-9]', text, re.M)
            assert f'vramd_model_loaded{{model_name="{name}"}} 1\n' in text
        families = re.findall(r"^# TYPE (\S+)", text, re.M)
        assert len(families) == len(set(families)) and text.count("\nvramd_ready{") == 1
        seen = []  # all samples of a family stand together
        for line in text.splitlines():
            name = line.split()[2] if line.startswith("# TYPE") else None
            if name:
                seen.append(name)
            elif not line.startswith("#"):
                assert line.startswith(seen[-1]), (line, seen[-1])
    finally:
        d.stop()


def test_200_alternating_requests_to_models_that_do_not_fit_together(folder):
    d = serve(conf(folder, budget_of_one(folder), a={}, b={}))
    seen, over, done = [], [], threading.Event()

    def watch():
        while not done.is_set():
            m = d.memory()
            seen.append(m["ledger_bytes"])
            if not m["ledger_bytes"] <= m["plan_bytes"] <= m["budget_bytes"] or m["peak_bytes"] > m["budget_bytes"]:
                over.append(m)
            assert d.http.get("/livez").status_code == 200
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert sorted(states(d).values()) == ["absent", "ready"]
        want = {name: d.complete("One", model=name, max_tokens=4).json()["choices"][0]["text"] for name in "ab"}
        for i in range(200):
            name = "ab"[i % 2]
            r = d.complete("One", model=name, max_tokens=4)
            assert r.status_code == 200 and r.json()["choices"][0]["text"] == want[name], r.text
        failed = []

        def client(k):
            for i in range(10):
                r = d.complete(f"Say {k} {i}", model="ab"[(i + k) % 2], max_tokens=4)
                if r.status_code != 200:
                    failed.append(r.text)

        clients = [threading.Thread(target=client, args=(k,)) for k in range(4)]
        [c.start() for c in clients]
        [c.join() for c in clients]
        assert not failed
    finally:
        done.set()
        watcher.join()
        text = d.stop()
    assert not over and len(seen) > 20 and text.count("ready after") > 200


def test_a_pinned_model_stays_and_operators_load_and_unload(folder):
    n = sizes(conf(folder, a={"pin": "true"}, b={}, c={}))
    budget = n["front end, vocabularies"] + n["a"] + max(n["b"], n["c"])
    d = serve(conf(folder, f"memory = {budget}\n", a={"pin": "true"}, b={"load": "request"}, c={"load": "request"}))
    try:
        assert states(d) == {"a": "ready", "b": "absent", "c": "absent"}
        for name in "bcb":
            assert d.complete("x", model=name).status_code == 200
            assert states(d)["a"] == "ready" and states(d)[name] == "ready"
        assert d.http.post("/v1/models/a/unload").status_code == 400
        assert d.http.post("/v1/models/b/unload").status_code == 200
        wait_state(d, "b", "absent")
        assert d.http.post("/v1/models/c/load").json()["id"] == "c"
        wait_state(d, "c", "ready")
        assert d.http.post("/v1/models/c/load", headers={"X-Forwarded-For": "1.2.3.4"}).status_code == 403
        assert d.http.post("/v1/models/x/load").status_code == 404 and d.http.post("/v1/models/c").status_code == 405
        card = d.http.get("/v1/models/c").json()
        assert card["pinned"] is False and 0 < card["bytes_now"] <= card["bytes"] == n["c"]
    finally:
        d.stop()


def test_vocabulary_and_templates_stay_until_they_are_of_another_file(folder):
    template = folder / "b.jinja"
    template.write_text("{{ messages[0].content }}.")
    d = serve(conf(folder, budget_of_one(folder), a={}, b={"load": "request", "chat_template": template}))

    def words():
        return {c["class"]: c["ledger_bytes"] for c in d.memory()["classes"]}["tokenizer"]

    def rendered():
        return d.http.post("/apply-template", json={"model": "b", "messages": [{"role": "user", "content": "hi"}]}).json()["prompt"]

    try:
        of_a = words()
        assert rendered() == "hi."  # b is loaded, a is not
        both = words()
        assert states(d) == {"a": "absent", "b": "ready"} and both > of_a > 0
        for name in "ab":
            assert d.complete("x", model=name, max_tokens=4).status_code == 200 and words() == both
        d.complete("x", model="a")
        template.write_text("{{ messages[0].content }}, again.")
        assert rendered() == "hi, again."
        assert d.complete("x", model="b", max_tokens=2, response_format={"type": "json_object"}).status_code == 200
    finally:
        d.stop()


def test_a_corrupt_file_is_failed_and_nothing_else_changes(folder):
    good = (folder / "b.gguf").read_bytes()
    d = serve(conf(folder, a={}, b={"load": "request"}))
    try:
        want = d.say("Hello", max_tokens=8)
        (folder / "b.gguf").write_bytes(b"JUNK" + good[4:])
        r = d.complete("x", model="b")
        assert r.status_code == 503 and "magic" in r.json()["error"]["message"] and "retry-after" in r.headers
        card = d.http.get("/v1/models/b").json()
        assert card["state"] == "failed" and "magic" in card["reason"] and card["bytes_now"] == 0
        assert d.complete("x", model="b").status_code == 503
        assert d.say("Hello", max_tokens=8) == want and d.http.get("/health").status_code == 200
        (folder / "b.gguf").write_bytes(good)
        assert d.http.post("/v1/models/b/load").status_code == 200
        wait_state(d, "b", "ready")
        assert d.complete("x", model="b").status_code == 200
    finally:
        (folder / "b.gguf").write_bytes(good)
        d.stop()


def test_a_stream_is_served_to_its_end_before_its_model_goes(folder):
    d = serve(conf(folder, budget_of_one(folder), a={}, b={}))
    try:
        got = {}

        def stream():
            got["a"] = d.events("/v1/completions", {"model": "a", "prompt": "x", "max_tokens": 200, "ignore_eos": True})

        t = threading.Thread(target=stream)
        t.start()
        while not d.memory()["models"][0]["requests"]:
            time.sleep(0.005)
        assert d.complete("x", model="b").status_code == 200
        t.join()
        assert got["a"][-1]["choices"][0]["finish_reason"] == "length"
    finally:
        d.stop()


def test_a_request_waits_for_its_model_no_longer_than_load_timeout(folder):
    n = sizes(conf(folder, a={}, b={}))
    d = serve(conf(folder, f"memory = {n['front end, vocabularies'] + n['b']}\n[server]\nload_timeout = 1\n", a={}, b={}))
    try:
        body = {"model": "a", "prompt": "x", "max_tokens": 1, "stream": True}
        with d.http.stream("POST", "/v1/completions", json={**body, "max_tokens": 250, "ignore_eos": True, "n": 4}) as slow:
            next(slow.iter_lines())
            r = d.complete("x", model="b", max_tokens=1)
        assert r.status_code in (200, 503), r.text  # a machine may end the stream first
        if r.status_code == 503:
            assert "within 1 s" in r.json()["error"]["message"] and r.headers["retry-after"] == "10"
        assert d.complete("x", model="b", max_tokens=1).status_code == 200
    finally:
        d.stop()


def test_weights_that_are_no_numbers_fail_in_the_middle_of_a_switch(folder):
    good = (folder / "b.gguf").read_bytes()
    d = serve(conf(folder, budget_of_one(folder), a={}, b={"load": "request"}))
    try:
        want = d.say("Hello", max_tokens=8)
        (folder / "b.gguf").write_bytes(good[:len(good) // 2] + b"\xff" * (len(good) - len(good) // 2))
        r = d.complete("x", model="b")
        assert r.status_code == 503 and d.http.get("/v1/models/b").json()["state"] == "failed", r.text
        loading = {c["class"]: c["ledger_bytes"] for c in d.memory()["classes"]}
        assert loading["weights"] == 0 and states(d)["a"] == "absent"
        assert d.say("Hello", max_tokens=8) == want and d.complete("x", model="b").status_code == 503
        assert d.memory()["peak_bytes"] <= d.memory()["budget_bytes"]
    finally:
        (folder / "b.gguf").write_bytes(good)
        d.stop()


def test_a_held_stream_gets_heartbeats_and_nothing_times_out(folder):
    d = serve(conf(folder, budget_of_one(folder) + "[server]\nheartbeat = 1\nidle_timeout = 4\nheader_timeout = 1\nbody_timeout = 1\nstream_credits = 8\n",
                   a={}, b={"load": "request"}))
    got, ask = {}, {"model": "b", "prompt": "x", "max_tokens": 4}

    def post(key, path, body):
        got[key] = d.http.post(path, json=body)

    chat = {"model": "b", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "stream": True}
    held = {"events": ("/v1/completions", {**ask, "stream": True}),
            "whole": ("/v1/completions", ask),
            "wrong": ("/v1/completions", {**ask, "stream": True, "max_tokens": 1000}),
            "wrong whole": ("/v1/completions", {**ask, "max_tokens": 1000}),
            "wrong message": ("/v1/messages", {**chat, "top_k": -7}),
            "message": ("/v1/messages", chat),
            "response": ("/v1/responses", {"model": "b", "input": "hi", "max_output_tokens": 4, "stream": True}),
            "late": ("/v1/completions", {**ask, "timeout": 1.5}),
            "late events": ("/v1/completions", {**ask, "timeout": 1.5, "stream": True}),
            "no answer": ("/tokenize", {"model": "b", "prompt": "x", "stream": True})}
    threads = [threading.Thread(target=post, args=(key, *x)) for key, x in held.items()]
    try:
        # Its client reads so slowly that it is there until it leaves (the answer is several times what sockets buffer), and
        # so fast that idle_timeout does not end it.
        busy = {"model": "a", "prompt": "x", "max_tokens": 250, "ignore_eos": True, "n": 100, "stream": True, "logprobs": 20}
        with d.http.stream("POST", "/v1/completions", json=busy) as answer:
            lines = answer.iter_lines()
            next(lines)
            [t.start() for t in threads]
            for _ in range(58):
                time.sleep(0.1)
                [next(lines) for _ in range(200)]
            assert set(got) == {"late", "late events"} and states(d)["b"] == "absent"
        [t.join() for t in threads]
    finally:
        d.stop()
    late = got["late"]
    assert late.status_code == 408 and "before the model was loaded" in late.json()["error"]["message"]
    assert got["late events"].status_code == 200 and got["late events"].text.startswith(":\n\ndata: {\"error\"")
    for key in ("events", "message", "response"):
        text = got[key].text
        assert got[key].status_code == 200 and got[key].headers["content-type"] == "text/event-stream"
        assert text.startswith(":\n\n:\n\n") and "error\":{" not in text, text
    assert got["events"].text.endswith("data: [DONE]\n\n") and '"finish_reason":"length"' in got["events"].text
    assert "event: message_stop" in got["message"].text and "event: response.created" in got["response"].text
    assert got["whole"].status_code == 200 and got["whole"].json()["usage"]["completion_tokens"] == 4
    # A fault that is found when its model is there: in the stream, in the words of its API.
    assert got["wrong whole"].status_code == 400
    want = got["wrong whole"].text
    assert got["wrong"].text.lstrip(":\n") == f"data: {want}\n\ndata: [DONE]\n\n", got["wrong"].text
    assert got["wrong message"].text.lstrip(":\n").startswith('event: error\ndata: {"type":"error"')
    assert got["no answer"].status_code == 200 and got["no answer"].json()["count"] == 1  # no stream at all


def test_a_stop_during_a_load_is_clean(folder):
    for wait in (0, 0.005, 0.05, 0.2):
        d = Daemon("--config", conf(folder, budget_of_one(folder), a={}, b={}), model=None, wait=False)
        d.wait_log("loading")
        time.sleep(wait)
        assert "stopped" in d.stop()


def test_a_model_of_a_type_refuses_what_is_for_the_other_before_it_is_loaded(folder):
    d = serve(conf(folder, a={"type": "chat"}, b={"type": "embed", "load": "request"}))
    try:
        chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/chat/completions", chat), ("/v1/messages", chat),
                           ("/v1/responses", {"input": "x"}), ("/completion", {"prompt": "x"})):
            r = d.http.post(path, json={"model": "b", **body})
            assert r.status_code == 400 and "gives embeddings alone" in r.text, r.text
        assert states(d)["b"] == "absent"
        r = d.http.post("/v1/embeddings", json={"model": "b", "input": ["x", "y"]})
        assert r.status_code == 200 and len(r.json()["data"]) == 2
        r = d.http.post("/v1/embeddings", json={"model": "a", "input": "x"})
        assert r.status_code == 400 and "the model a gives no embeddings" in r.text
        assert d.complete("x", model="a").status_code == 200
    finally:
        d.stop()


LONG = [3 + i * i % 200 for i in range(700)]  # 5 whole chunks of 128


def cached(d, name):
    r = d.complete(LONG, model=name, max_tokens=4).json()
    return r["usage"]["prompt_tokens_details"]["cached_tokens"], r["choices"][0]["text"]


def disk_bytes(disk):
    return sum(f.stat().st_size for f in disk.rglob("*.kv"))


def test_prefixes_on_disk_outlive_their_model_and_a_kill(folder, tmp_path):
    disk = tmp_path / "disk"
    keys = {"max_model_len": 1024, "kv_cache_tokens": 1024}
    sections = {"a": keys, "b": {**keys, "load": "request"}}
    path = conf(folder, f"kv_disk = {disk}\n", **sections)
    n = sizes(path)
    memory = f"memory = {n['front end, vocabularies'] + max(n['a'], n['b'])}\n"
    path = conf(folder, f"kv_disk = {disk}\nkv_disk_bytes = 64MiB\n" + memory, **sections)
    d = serve(path)
    said = {}
    try:
        for name in "ab":  # each makes space for the other
            found, said[name] = cached(d, name)
            assert found == 0 and states(d)[name] == "ready" and list(states(d).values()).count("ready") == 1
        assert said["a"] != said["b"]
        for name in "abab":
            assert cached(d, name) == (640, said[name]), name
        assert len(list(disk.glob("model-*/*/*/*.kv"))) == 10
        d.process.kill()
        d.process.wait()
        d = serve(path)
        for name in "ba":
            assert cached(d, name) == (640, said[name]), name
    finally:
        d.stop()
    # All models together stay within kv_disk_bytes, also those that are not loaded; and what a model without a section had goes.
    most = disk_bytes(disk) - 1
    d = serve(conf(folder, f"kv_disk = {disk}\nkv_disk_bytes = {most}\n" + memory, **sections))
    try:
        for name in "abab":
            assert cached(d, name)[1] == said[name] and disk_bytes(disk) <= most
    finally:
        d.stop()
    serve(conf(folder, f"kv_disk = {disk}\n" + memory, a=keys)).stop()
    assert len(list(disk.glob("model-*/*/*/*.kv"))) <= 5


def test_only_some_keys_may_use_a_model(folder):
    made = [vramd("key", name) for name in ("alice", "bob")]
    alice, bob = (re.search(r"vk-\w+", r.stderr)[0] for r in made)
    keys = folder / "keys"
    keys.write_text("".join(r.stdout for r in made))
    keys.chmod(0o600)
    d = Daemon("--config", conf(folder, f"[server]\napi_keys_file = {keys}\n", a={}, b={"tenants": "bob, carol"}), model=None, wait=False)
    m = d.wait_log(r"READY: curl http://127\.0\.0\.1:(\d+)/")
    import httpx
    d.http = httpx.Client(base_url=f"http://127.0.0.1:{m[1]}", timeout=60)
    d.client = d.http
    try:
        for line, b in ((alice, 404), (bob, 200)):
            key = {"Authorization": f"Bearer {line}"}
            for name, want in (("a", 200), ("b", b)):
                r = d.http.post("/v1/completions", headers=key, json={"model": name, "prompt": "x", "max_tokens": 1})
                assert r.status_code == want, r.text
            assert d.http.post("/v1/models/b/unload", headers=key).status_code == 403
    finally:
        d.stop()


def test_what_cannot_be_served_is_refused_at_the_start(folder):
    n = sizes(conf(folder, a={"pin": "true"}, b={"pin": "true"}, c={}))
    front = n["front end, vocabularies"]

    def said(more, **sections):
        r = vramd("serve", "--check", "--config", conf(folder, more, **sections))
        served = vramd("serve", "--config", conf(folder, more, **sections))
        assert r.returncode != 0 and r.stdout == "" and untimed(served.stderr) == untimed(r.stderr)
        return r.stderr

    both = {"a": {"pin": "true"}, "b": {"pin": "true"}}
    two = sizes(conf(folder, **both))["front end, vocabularies"]
    assert "[model b] and those that are pinned" in said(f"memory = {two + n['a'] + n['b'] - 1}\n", **both)
    assert "[model c] and those that are pinned" in said(f"memory = {front + n['a'] + n['b'] + n['c'] - 1}\n", **both, c={})
    assert "[model x]: " in said("", a={}, x={})
    assert "type = rerank, but it is chat or embed" in said("", a={"type": "rerank"})
    assert "step_log is for a server of one model" in said(f"[log]\nstep_log = {folder}/log\n", a={})
    assert "[model a]: kv_disk_bytes is less than 128 tokens take" in said(f"kv_disk = {folder}/disk\nkv_disk_bytes = 64KiB\n", a={"embeddings": "off"}, b={})
    assert "stands beside 1 sections" in vramd("serve", "--config", conf(folder, a={}), "--model", "x").stderr
