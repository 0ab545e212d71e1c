"""Ollama's API (option ollama_api), by its own Python client and by hand."""

import json
from datetime import datetime

import ollama
import pytest

from harness import MODEL, OPTIONS, Daemon

STORY = "Once upon a time"
GREEDY = {"temperature": 0, "num_predict": 12}


@pytest.fixture(scope="module")
def server():
    d = Daemon(*OPTIONS, "--ollama-api", "--embeddings", "auto", "--served-model-name", "small")
    d.ollama = ollama.Client(host=d.url)
    yield d
    d.wait_free()
    d.stop()


def messages(text="Say hello."):
    return [{"role": "system", "content": "You are brief."}, {"role": "user", "content": text}]


def test_chat_is_the_chat_of_the_other_api(server):
    want = server.http.post("/v1/chat/completions", json={"messages": messages(), "temperature": 0, "max_tokens": 12}).json()
    r = server.ollama.chat("small", messages=messages(), options=GREEDY)
    assert r.message.content == want["choices"][0]["message"]["content"] and r.message.role == "assistant"
    assert r.model == "small" and r.done and r.done_reason == "length"
    assert r.prompt_eval_count == want["usage"]["prompt_tokens"] and r.eval_count == 12
    assert r.total_duration >= r.eval_duration > 1000 and r.prompt_eval_duration > 1000 and r.load_duration >= 0
    assert abs(datetime.fromisoformat(r.created_at).timestamp() - datetime.now().timestamp()) < 60
    parts = list(server.ollama.chat("small:latest", messages=messages(), options=GREEDY, stream=True))
    assert "".join(p.message.content for p in parts) == r.message.content
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True] and parts[-1].eval_count == 12


def test_lines_of_json_are_the_default(server):
    r = server.http.post("/api/chat", json={"model": "small", "messages": messages(), "options": GREEDY})
    assert r.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(x) for x in r.text.splitlines()]
    assert len(lines) > 2 and lines[-1]["done"] is True and "eval_count" not in lines[0]
    assert json.loads(server.http.post("/api/chat", json={"messages": messages(), "stream": False, "options": GREEDY}).text)["done"]


def test_generate(server):
    want = server.http.post("/v1/chat/completions", json={"messages": messages(), "temperature": 0, "max_tokens": 12}).json()
    r = server.ollama.generate("small", "Say hello.", system="You are brief.", options=GREEDY)
    assert r.response == want["choices"][0]["message"]["content"]
    raw = server.ollama.generate("small", STORY, raw=True, options=GREEDY)
    assert raw.response == server.say(STORY, max_tokens=12)
    assert "".join(p.response for p in server.ollama.generate("small", STORY, raw=True, options=GREEDY, stream=True)) == raw.response
    r = server.ollama.generate("small", STORY, raw=True, options={"temperature": 0, "num_predict": -1, "stop": ["."]})
    assert r.done_reason == "stop" and "." not in r.response and r.eval_count > 0
    assert server.ollama.generate("small").done_reason == "load"
    assert server.ollama.generate("small", keep_alive=0).done_reason == "unload"
    assert server.ollama.chat("small", messages=[]).done_reason == "load"


def test_embeddings(server):
    want = [x["embedding"] for x in server.http.post("/v1/embeddings", json={"input": ["a b", "c"]}).json()["data"]]
    r = server.ollama.embed("small", ["a b", "c"])
    assert [list(e) for e in r.embeddings] == want and r.prompt_eval_count == len(server.tokens("a b")) + len(server.tokens("c"))
    assert list(server.ollama.embed("small", "c").embeddings[0]) == want[1]
    assert list(server.ollama.embeddings("small", "c").embedding) == want[1]
    assert len(server.ollama.embed("small", "c", dimensions=3).embeddings[0]) == 3
    # The beginning of what is too long is kept, unless that is not wanted.
    ids = server.tokens("word " * 2000)[:1024]
    kept = server.http.post("/v1/embeddings", json={"input": ids}).json()["data"][0]["embedding"]
    assert list(server.ollama.embed("small", "word " * 2000).embeddings[0]) == kept
    with pytest.raises(ollama.ResponseError, match="maximum context length"):
        server.ollama.embed("small", "word " * 2000, truncate=False)


def test_the_model(server):
    assert [m.model for m in server.ollama.list().models] == ["small"] == [m.model for m in server.ollama.ps().models]
    line, running = server.ollama.list().models[0], server.ollama.ps().models[0]
    assert line.details.family == "llama" and line.details.parameter_size == "134.52M" and len(line.digest) == 64
    assert running.context_length == 1024 and running.size_vram == 0 and running.digest == line.digest
    show = server.ollama.show("small")
    assert "<|im_start|>" in show.template and show.modelinfo["general.architecture"] == "llama"
    assert show.modelinfo["llama.context_length"] == 1024 and show.capabilities[:2] == ["completion", "embedding"]
    assert server.http.get("/api/version").json() == server.http.get("/version").json()


def test_history_with_calls_reaches_the_template_or_is_refused_by_name(server):
    """What the template of this model takes of it is not this test's matter: arguments are an object here, as text there."""
    call = {"function": {"name": "f", "arguments": {"a": [1, {"b": None}]}}}
    own = [*messages("x"), {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "tool_name": "f", "content": "1"}]
    same = [*messages("x"), {"role": "assistant", "content": "", "tool_calls": [
        {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": [1, {"b": None}]})}}]},
        {"role": "tool", "name": "f", "tool_call_id": "call_0", "content": "1"}]
    a = server.http.post("/api/chat", json={"messages": own, "stream": False, "options": GREEDY})
    b = server.http.post("/v1/chat/completions", json={"messages": same, "temperature": 0, "max_tokens": 12})
    assert a.status_code == b.status_code
    if a.status_code == 200:
        assert a.json()["message"]["content"] == b.json()["choices"][0]["message"]["content"]


def test_what_is_refused(server):
    for path, body, text in (
            ("chat", {"messages": messages(), "options": {"num_ctx": 4096}}, "num_ctx"),
            ("chat", {"messages": messages(), "options": {"mirostat": 1}}, "mirostat"),
            ("chat", {"messages": messages(), "options": 3}, "options"),
            ("chat", {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "images"),
            ("chat", {"messages": [{"content": "x"}]}, "role"), ("chat", {"messages": 3}, "messages"),
            ("chat", {"messages": messages(), "think": 3}, "think"), ("chat", {"messages": messages(), "format": 3}, "format"),
            ("generate", {"prompt": "x", "suffix": "y"}, "suffix"), ("generate", {"prompt": "x", "context": [1]}, "context"),
            ("generate", {"prompt": 3}, "prompt"), ("embeddings", {}, "prompt"), ("embed", {}, "input"),
            ("embed", {"input": "x", "truncate": "y"}, "truncate")):
        r = server.http.post(f"/api/{path}", json=body)
        assert r.status_code == 400 and list(r.json()) == ["error"] and text in r.json()["error"], (path, body, r.text)
    with pytest.raises(ollama.ResponseError) as e:
        server.ollama.chat("other", messages=messages())
    assert e.value.status_code == 404
    for call in (lambda: server.ollama.pull("x"), lambda: server.ollama.push("x"), lambda: server.ollama.delete("x"),
                 lambda: server.ollama.create("x", from_="y"), lambda: server.ollama.copy("x", "y")):
        with pytest.raises(ollama.ResponseError, match="the model that its operator names") as e:
            call()
        assert e.value.status_code == 404


def test_off_by_default(daemon):
    for path in ("chat", "tags", "pull"):
        r = daemon.http.post(f"/api/{path}", json={})
        assert r.status_code == 404 and "ollama_api" in r.json()["error"], r.text


def test_a_name_of_the_file_serves_too():
    d = Daemon(*OPTIONS, "--ollama-api")
    try:
        name = MODEL.rsplit("/", 1)[1].removesuffix(".gguf")
        assert ollama.Client(host=d.url).list().models[0].model == name
    finally:
        d.stop()


SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
          "required": ["name", "age"], "additionalProperties": False}


def test_format_is_kept_to(server):
    for _ in range(3):
        r = server.ollama.chat("small", messages=messages("Tell me of a person."), format=SCHEMA, options={"temperature": 1, "num_predict": 200})
        got = json.loads(r.message.content)
        assert set(got) == {"name", "age"} and isinstance(got["name"], str) and 0 <= got["age"] <= 120 and r.done_reason == "stop"
    raw = server.ollama.generate("small", STORY, raw=True, format=SCHEMA, options={"num_predict": 200})
    assert set(json.loads(raw.response)) == {"name", "age"}
