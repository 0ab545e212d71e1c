"""Refusals: status, type and param of every case, and nothing of a stream before them."""

import http.client
import json
import signal
import socket
import threading

import openai
import pytest

from harness import OPTIONS, Daemon

INVALID, UNSUPPORTED = (400, "invalid_request_error"), (400, "invalid_request_error", "unsupported_parameter")
MESSAGES = [{"role": "user", "content": "Hi"}]
COMPLETIONS = [
    ({}, INVALID, "prompt"),
    ({"prompt": None}, INVALID, "prompt"),
    ({"prompt": []}, INVALID, "prompt"),
    ({"prompt": 7}, INVALID, "prompt"),
    ({"prompt": [1, "x"]}, INVALID, "prompt"),
    ({"prompt": [49152]}, INVALID, "prompt"),
    ({"prompt": [-1]}, INVALID, "prompt"),
    ({"prompt": "x", "max_tokens": -1}, INVALID, "max_tokens"),
    ({"prompt": "x", "max_tokens": 1.5}, INVALID, "max_tokens"),
    ({"prompt": "x", "temperature": -0.1}, INVALID, "temperature"),
    ({"prompt": "x", "top_p": 1.1}, INVALID, "top_p"),
    ({"prompt": "x", "top_k": "many"}, INVALID, "top_k"),
    ({"prompt": "x", "min_p": 2}, INVALID, "min_p"),
    ({"prompt": "x", "n": 0}, INVALID, "n"),
    ({"prompt": "x", "n": 100000}, INVALID, "n"),
    ({"prompt": "x", "n": 2, "best_of": 1}, INVALID, "best_of"),
    ({"prompt": "x", "best_of": 3, "stream": True}, INVALID, "best_of"),
    ({"prompt": "x", "prompt_logprobs": -1}, INVALID, "prompt_logprobs"),
    ({"prompt": "x", "use_beam_search": True}, UNSUPPORTED, "use_beam_search"),
    ({"prompt": "x", "mirostat": 2}, UNSUPPORTED, "mirostat"),
    ({"prompt": "x", "lora": [{"id": 0}]}, UNSUPPORTED, "lora"),
    ({"prompt": "x", "logprobs": 21}, INVALID, "logprobs"),
    ({"prompt": "x", "stop": 3}, INVALID, "stop"),
    ({"prompt": "x", "stop": ["a", 3]}, INVALID, "stop"),
    ({"prompt": "x", "stop_token_ids": "a"}, INVALID, "stop_token_ids"),
    ({"prompt": "x", "logit_bias": []}, INVALID, "logit_bias"),
    ({"prompt": "x", "logit_bias": {"5": 1000}}, INVALID, "logit_bias"),
    ({"prompt": "x", "logit_bias": {"not one token at all": 1}}, INVALID, "logit_bias"),
    ({"prompt": "x", "presence_penalty": 9}, INVALID, "presence_penalty"),
    ({"prompt": "x", "frequency_penalty": "a"}, INVALID, "frequency_penalty"),
    ({"prompt": "x", "repetition_penalty": 0}, INVALID, "repetition_penalty"),
    ({"prompt": "x", "stream": "yes"}, INVALID, "stream"),
    ({"prompt": "x", "stream": True, "stream_options": 1}, INVALID, "stream_options"),
    ({"prompt": "x", "seed": "s"}, INVALID, "seed"),
    ({"prompt": "x", "min_tokens": 20, "max_tokens": 10}, INVALID, "min_tokens"),
    ({"prompt": "x", "timeout": -1}, INVALID, "timeout"),
    ({"prompt": "x", "suffix": "y"}, UNSUPPORTED, "suffix"),
    ({"prompt": "x", "grammar": "root ::= [a-z"}, INVALID, "grammar"),
    ({"prompt": "x", "regex": "(?=a)a"}, UNSUPPORTED, "regex"),
    ({"prompt": "x", "response_format": {"type": "xml"}}, UNSUPPORTED, "response_format"),
    ({"prompt": "x", "model": "gpt-4"}, (404, "not_found_error"), "model"),
]
CHATS = [
    ({}, INVALID, "messages"),
    ({"messages": []}, INVALID, "messages"),
    ({"messages": "hi"}, INVALID, "messages"),
    ({"messages": ["hi"]}, INVALID, "messages[0]"),
    ({"messages": [{"content": "x"}]}, INVALID, "messages[0].role"),
    ({"messages": MESSAGES + [{"role": "user"}]}, INVALID, "messages[1].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, INVALID,
     "messages[0].content[0]"),
    ({"messages": MESSAGES, "top_logprobs": 2}, INVALID, "top_logprobs"),
    ({"messages": MESSAGES, "logprobs": 2}, INVALID, "logprobs"),
    ({"messages": MESSAGES, "max_completion_tokens": 0}, INVALID, "max_completion_tokens"),
    ({"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]}, UNSUPPORTED, "tools"),
    ({"messages": MESSAGES, "tool_choice": "required"}, INVALID, "tool_choice"),
    ({"messages": MESSAGES, "modalities": ["text", "audio"]}, UNSUPPORTED, "modalities"),
    ({"messages": MESSAGES, "chat_template": "{{ x }}"}, INVALID, "chat_template"),
    ({"messages": MESSAGES, "chat_template_kwargs": [1]}, INVALID, "chat_template_kwargs"),
    ({"messages": MESSAGES, "documents": {}}, INVALID, "documents"),
    ({"messages": MESSAGES, "continue_final_message": True}, INVALID, "continue_final_message"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, UNSUPPORTED, "messages[0].tool_calls"),
    ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, UNSUPPORTED, "messages[0].function_call"),
]


def check(r, status, kind, param, code=None):
    assert r.status_code == status, r.text
    assert r.headers["content-type"].startswith("application/json")
    e = r.json()["error"]
    assert set(e) >= {"message", "type", "param", "code"}
    assert (e["type"], e["code"], e["param"]) == (kind, code or status, param) and e["message"]
    return e


@pytest.mark.parametrize("stream", [False, True])
def test_every_wrong_parameter_is_named(daemon, stream):
    wrong = []
    for path, rows in (("/v1/completions", COMPLETIONS), ("/v1/chat/completions", CHATS)):
        for body, (status, kind, *code), param in rows:
            if stream:
                body = {"stream": True, **body}
            try:
                check(daemon.http.post(path, json=body), status, kind, param, *code)
            except AssertionError as e:
                wrong.append(f"{path} {body}: {e}")
    assert not wrong, "\n".join(wrong)


BROKEN = [b"", b"{", b"[]", b"null", b'"x"', b'{"prompt": "x"', b'{"prompt": "x"}}', b'{"prompt": "\xff\xfe"}',
          b'{"a": ' * 3000, b"[" * 100000, b'{"prompt": "x", "prompt": "y"', b'{"prompt": 1e999}', b"\0" * 64,
          b'{"prompt": "\\ud800"}']


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
def test_bodies_that_are_no_request_get_400(daemon, path):
    for body in BROKEN:
        r = daemon.http.post(path, content=body)
        assert r.status_code == 400, (path, body[:40], r.text)
        assert r.json()["error"]["type"] == "invalid_request_error"
    assert daemon.http.get("/health").status_code == 200


def test_too_long_a_prompt_tells_how_long_it_was(daemon):
    e = check(daemon.complete([5] * 1100), 400, "exceed_context_size_error", "prompt")
    assert e["n_prompt_tokens"] == 1100 and e["n_ctx"] == 1024
    assert "maximum context length is 1024 tokens" in e["message"]
    e = check(daemon.complete([5] * 1000, max_tokens=25), 400, "exceed_context_size_error", "prompt")
    assert "maximum context length is 1024 tokens" in e["message"]
    assert daemon.complete([5] * 1000, max_tokens=24).status_code == 200


def test_openai_raises_what_it_should(daemon):
    model = daemon.client.models.list().data[0].id
    with pytest.raises(openai.BadRequestError):
        daemon.client.completions.create(model=model, prompt="x", top_p=3)
    with pytest.raises(openai.NotFoundError):
        daemon.client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError) as e:
        daemon.client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x " * 2000}])
    assert "maximum context length" in str(e.value)


@pytest.mark.parametrize("method,path,allow", [
    ("GET", "/v1/completions", "POST"), ("DELETE", "/v1/chat/completions", "POST"), ("PUT", "/tokenize", "POST"),
    ("POST", "/v1/models", "GET"), ("POST", "/metrics", "GET"), ("POST", "/v1/memory", "GET")])
def test_wrong_methods_are_told_the_right_ones(daemon, method, path, allow):
    r = daemon.http.request(method, path)
    assert r.status_code == 405 and allow in r.headers["allow"]
    assert r.json()["error"]["code"] == 405


def raw(daemon, data, want_close=True):
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as s:
        s.sendall(data)
        got = b""
        while chunk := s.recv(65536):
            got += chunk
            if not want_close and b"\r\n\r\n" in got:
                break
    return got


def test_hostile_framing_is_refused(daemon):
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
    for lines, status in (
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", (400,)),
            ("Transfer-Encoding: gzip\r\n\r\nxxxxx", (400, 501)),
            ("Content-Length: 99999999999\r\n\r\n", (413,)),
            ("Content-Length: -5\r\n\r\n", (400,))):
        got = raw(daemon, (head + "Connection: close\r\n" + lines).encode(), want_close=False)
        assert int(got.split()[1]) in status, (lines, got[:200])
    got = raw(daemon, b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", want_close=False)
    assert got.split()[1] == b"400", got[:200]
    assert daemon.http.get("/health").status_code == 200


def test_draining_answers_503_and_lets_streams_end():
    d = Daemon(*OPTIONS)
    kept = http.client.HTTPConnection("127.0.0.1", d.port, timeout=60)
    kept.request("GET", "/health")
    kept.getresponse().read()
    lines, started = [], threading.Event()

    def stream():
        with d.http.stream("POST", "/v1/completions", json={
                "prompt": "Count:", "max_tokens": 200, "ignore_eos": True, "stream": True}) as r:
            for line in r.iter_lines():
                lines.append(line)
                started.set()

    t = threading.Thread(target=stream)
    t.start()
    assert started.wait(60)
    d.process.send_signal(signal.SIGTERM)
    d.wait_log("draining")
    kept.request("POST", "/v1/completions", body=json.dumps({"prompt": "x", "max_tokens": 1}))
    r = kept.getresponse()
    body = json.loads(r.read())
    assert r.status == 503 and body["error"]["type"] == "unavailable_error" and int(r.headers["Retry-After"]) >= 1
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", d.port), timeout=5)
    t.join(60)
    assert "data: [DONE]" in lines
    kept.close()
    d.stop()


def test_the_drain_has_a_deadline():
    d = Daemon(*OPTIONS, "--drain-timeout", "1")
    with d.http.stream("POST", "/v1/completions", json={
            "prompt": "Count:", "max_tokens": 1000, "ignore_eos": True, "stream": True}) as r:
        lines = r.iter_lines()
        next(lines)
        d.process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert any('"error"' in x for x in rest) or "data: [DONE]" in rest
    assert d.process.wait(20) == 0
    d.stop()
