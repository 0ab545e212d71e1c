"""Chat templates of a model, of a file and of a request, as POST /apply-template shows them."""

import pytest

from harness import BINARY, Daemon, vramd
from tiny_model import write

ASK = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"z": {}, "a": {}}}}}
NAMED = [("tool_use", "{{ tools|tojson }}|{{ messages[0].content }}"), ("rag", "{{ documents|tojson }}|{{ messages[0].content }}")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("templates") / "tiny.gguf"
    write(path, "F16", templates=NAMED)
    return path


def prompt(d, **body):
    r = d.http.post("/apply-template", json={"messages": ASK, **body})
    assert r.status_code == 200, r.text
    return r.json()["prompt"]


def test_a_model_may_have_several_templates(model):
    d = Daemon("--model", str(model))
    try:
        assert prompt(d) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        assert prompt(d, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"
        assert prompt(d, tools=[TOOL]) == ('[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", '
                                           '"properties": {"z": {}, "a": {}}}}}]|Hi')
        r = d.http.post("/apply-template", json={"messages": ASK, "tokens": True}).json()
        said = d.http.post("/tokenize", json={"messages": ASK}).json()
        chat = d.http.post("/v1/chat/completions", json={"messages": ASK, "max_tokens": 1}).json()
        assert r["tokens"] == said["tokens"] and chat["usage"]["prompt_tokens"] == said["count"] == len(r["tokens"])
        assert d.http.post("/v1/chat/completions", json={"messages": ASK, "chat_template": "x"}).status_code == 400
    finally:
        d.stop()


def test_the_options_choose_the_template_and_its_variables(model, tmp_path):
    d = Daemon("--model", str(model), "--chat-template", "rag", "--trust-request-chat-template")
    try:
        assert prompt(d, documents=[{"b": 1.0, "a": 2}]) == '[{"b": 1.0, "a": 2}]|Hi'
        assert prompt(d, chat_template="{{ messages[0].content }} {{ x }}!", chat_template_kwargs={"x": 1}) == "Hi 1!"
        r = d.http.post("/v1/chat/completions", json={"messages": ASK, "chat_template": "{{ raise_exception('Never.') }}"})
        assert r.status_code == 400 and r.json()["error"]["message"] == "Never."
    finally:
        d.stop()
    file = tmp_path / "t.jinja"
    file.write_text("{{ enable_thinking }} {{ x }} {{ reasoning_effort }}\n")
    d = Daemon("--model", str(model), "--chat-template", str(file), "--chat-template-kwargs", '{"enable_thinking": true, "x": "d"}')
    try:
        assert prompt(d) == "True d "
        assert prompt(d, chat_template_kwargs={"x": None}, reasoning_effort="low") == "True None low"
        assert prompt(d, reasoning_effort="none") == "False d none"
        assert d.http.get("/tokenizer_info").json()["chat_template"] == file.read_text()
    finally:
        d.stop()


def test_a_template_that_does_not_parse_leaves_completions(model, tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("a\n{% include 'x' %}")
    d = Daemon("--model", str(model), "--chat-template", str(file))
    try:
        d.wait_log(r"the chat template does not parse: .*include.*line 2: chats are refused")
        r = d.http.post("/v1/chat/completions", json={"messages": ASK})
        assert r.status_code == 400 and r.json()["error"]["param"] == "chat_template" and "line 2" in r.json()["error"]["message"]
        assert d.complete("Hi").status_code == 200
    finally:
        d.stop()


@pytest.mark.parametrize("option, value, why", [
    ("--chat-template", "/nonexistent.jinja", "cannot be read"), ("--chat-template", "/tmp", "cannot be read"),
    ("--chat-template-kwargs", "[1]", "not a JSON object"), ("--pre-tokenizer", "superbpe", "no pre-tokenizer")])
def test_what_cannot_be_used_is_refused_at_the_start(model, option, value, why):
    r = vramd("serve", "--check", "--model", str(model), option, value)
    assert r.returncode != 0 and why in r.stderr, r.stderr


def test_generate_uses_the_same_template(model, tmp_path):
    file = tmp_path / "t.jinja"
    file.write_text("{{ messages[0].content }} x x x {{ y }}")
    args = ("generate", "--model", str(model), "--verbose", "--max-tokens", "1", "--chat-template")
    short = vramd(*args, "rag", "Hi").stderr
    long = vramd(*args, str(file), "--chat-template-kwargs", '{"y": "x x x x x x x x x x x x"}', "Hi").stderr
    count = [int(s.split("prompt ")[1].split()[0]) for s in (short, long)]
    assert count[1] > count[0] > 1
