"""Tools and reasoning by the openai package: on SmolLM2, which a small template and the constraint make call, and on a
model that has learnt it."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from harness import OPTIONS, Daemon, vramd

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"
TEMPLATE = str(HERE / "hermes.jinja")
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Current weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
                                                    "unit": {"enum": ["celsius", "fahrenheit"]}},
                   "required": ["city", "unit"], "additionalProperties": False}}}
ADD = {"type": "function", "function": {
    "name": "add", "description": "Sum of two numbers",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 999}, "b": {"type": "integer", "minimum": 0, "maximum": 999}},
                   "required": ["a", "b"], "additionalProperties": False}}}
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def tools():
    d = Daemon(*OPTIONS, "--chat-template", TEMPLATE)
    yield d
    d.wait_free()
    d.stop()


@pytest.fixture(scope="module")
def chat(tools):
    def chat(**more):
        args = dict(model="", messages=ASK, max_tokens=128, temperature=0, tools=[WEATHER, ADD])
        return tools.client.chat.completions.create(**{**args, **more})
    return chat


def check(call, named=None):
    args = json.loads(call.function.arguments)
    assert re.fullmatch(r"call_[a-z0-9]{24}", call.id) and call.type == "function"
    assert call.function.name == (named or call.function.name)
    if call.function.name == "get_weather":
        assert set(args) == {"city", "unit"} and args["unit"] in ("celsius", "fahrenheit") and len(args["city"]) <= 20
    else:
        assert call.function.name == "add" and all(0 <= args[k] <= 999 for k in ("a", "b")) and len(args) == 2


def joined(stream):
    """What the deltas of a stream add up to: content, reasoning, calls, finish_reason."""
    content, reasoning, calls, finish = "", "", [], None
    for chunk in stream:
        for c in chunk.choices:
            content += c.delta.content or ""
            thought = getattr(c.delta, "reasoning_content", None)
            assert getattr(c.delta, "reasoning", None) == thought
            reasoning += thought or ""
            for t in c.delta.tool_calls or []:
                if t.id:
                    assert t.index == len(calls) and t.function.name and t.function.arguments == ""
                    calls.append([t.id, t.function.name, ""])
                calls[t.index][2] += t.function.arguments
            finish = c.finish_reason or finish
    return content, reasoning, calls, finish


@pytest.mark.parametrize("seed", range(8))
def test_required_gives_valid_calls_at_any_temperature(chat, seed):
    r = chat(tool_choice="required", temperature=1, seed=seed, parallel_tool_calls=False)
    choice = r.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    check(call)


@pytest.mark.parametrize("name", ["get_weather", "add"])
def test_a_named_function_is_called(chat, name):
    r = chat(tool_choice={"type": "function", "function": {"name": name}}, temperature=1, seed=3)
    (call,) = r.choices[0].message.tool_calls
    check(call, name)
    assert r.choices[0].finish_reason == "tool_calls"


def test_allowed_tools_narrow_the_choice(chat):
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
        {"type": "function", "function": {"name": "add"}}]}}
    for call in chat(tool_choice=choice, parallel_tool_calls=False).choices[0].message.tool_calls:
        check(call, "add")


def test_deltas_of_a_stream_are_the_whole_answer(chat):
    kind = dict(tool_choice="required", temperature=1, seed=5, parallel_tool_calls=False)
    (call,) = chat(**kind).choices[0].message.tool_calls
    content, _, calls, finish = joined(chat(**kind, stream=True))
    assert content == "" and finish == "tool_calls"
    assert [c[1:] for c in calls] == [[call.function.name, call.function.arguments]]


def test_history_with_calls_and_results_is_in_the_prompt(tools, chat):
    (call,) = chat(tool_choice={"type": "function", "function": {"name": "get_weather"}}).choices[0].message.tool_calls
    history = [*ASK, {"role": "assistant", "content": None, "tool_calls": [call.to_dict()]},
               {"role": "tool", "tool_call_id": call.id, "content": "rain, 12 degrees"}]
    r = tools.http.post("/apply-template", json={"messages": history, "tools": [WEATHER]}).json()
    assert '<tool_call>\n{"name": "get_weather", "arguments": {' in r["prompt"]
    assert "<|im_start|>tool\nrain, 12 degrees<|im_end|>" in r["prompt"]
    assert chat(messages=history, tool_choice="none", max_tokens=8).choices[0].message.content


def test_a_call_that_is_cut_off_ends_by_length(chat):
    r = chat(tool_choice="required", max_tokens=14)
    assert r.choices[0].finish_reason == "length"


@pytest.mark.parametrize("seed", range(8))
def test_behind_the_mark_of_a_call_auto_gives_a_valid_one(chat, seed):
    """The model has begun a call; text would be free."""
    begun = [*ASK, {"role": "assistant", "content": "I look. <tool_call>"}]
    kind = dict(messages=begun, temperature=1, seed=seed, parallel_tool_calls=False,
                extra_body={"continue_final_message": True, "add_generation_prompt": False})
    (call,) = chat(**kind).choices[0].message.tool_calls
    check(call)
    (again,) = joined(chat(**kind, stream=True))[2]
    assert again[1:] == [call.function.name, call.function.arguments]


def test_auto_leaves_text_as_it_is(chat):
    kind = dict(messages=[{"role": "user", "content": "Say a word."}], max_tokens=24)
    free, auto = (chat(**kind, tool_choice=c).choices[0] for c in ("none", "auto"))
    assert auto.message.tool_calls is None and (auto.message.content, auto.finish_reason) == (free.message.content, free.finish_reason)


def test_required_calls_leave_no_text_for_a_response_format(chat):
    for form in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}):
        c = chat(tool_choice="required", response_format=form, temperature=1, seed=3).choices[0]
        assert c.finish_reason in ("tool_calls", "length") and c.message.tool_calls and not c.message.content, c


def test_a_tool_beside_a_response_format(chat):
    """Either: here the model has begun a call, there it may only answer in the form."""
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed in range(4):
        message = chat(response_format=form, temperature=1, seed=seed, parallel_tool_calls=False).choices[0].message
        if message.tool_calls:
            check(message.tool_calls[0])
        else:
            assert json.loads(message.content)["a"] in range(10)


def test_strict_is_kept_or_refused(tools):
    odd = {"type": "function", "function": {"name": "odd", "parameters": {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}}}
    ask = lambda **more: tools.http.post("/v1/chat/completions", json={"messages": ASK, "max_tokens": 4, **more})  # noqa: E731
    assert ask(tools=[odd]).status_code == 200
    odd["function"]["strict"] = True
    r = ask(tools=[odd])
    assert (r.status_code, r.json()["error"]["param"]) == (400, "tools (parameters of odd)")
    odd["function"]["strict"] = "yes"
    r = ask(tools=[odd])
    assert (r.status_code, r.json()["error"]["param"]) == (400, "tools[0].function.strict")


def test_tools_without_number_leave_auto_free(tmp_path):
    """Names that are too many for a grammar: calls are found in free text then, and required ones are refused."""
    short = tmp_path / "short.jinja"
    short.write_text((HERE / "hermes.jinja").read_text().replace("tool.function | tojson", "tool.function.name[:0]"))
    many = [{"type": "function", "function": {"name": f"{i:03d}" + f"{i * 2654435761 % 2**32:08x}" * 7}} for i in range(360)]
    d = Daemon(*OPTIONS, "--chat-template", str(short), "--request-memory", "256MiB")
    ask = lambda **more: d.http.post("/v1/chat/completions", json={"messages": ASK, "max_tokens": 4, "tools": many, **more})  # noqa: E731
    try:
        assert ask().status_code == 200, ask().text
        r = ask(tool_choice="required")
        assert r.status_code == 400 and "too large" in r.json()["error"]["message"], r.text
    finally:
        d.wait_free()
        d.stop()


def test_what_cannot_be_is_refused(tools):
    ask = lambda **more: tools.http.post("/v1/chat/completions", json={"messages": ASK, **more})  # noqa: E731
    r = ask(tool_choice="required")
    assert (r.status_code, r.json()["error"]["param"]) == (400, "tool_choice")
    r = ask(tools=[WEATHER, WEATHER])
    assert (r.status_code, r.json()["error"]["param"]) == (400, "tools[1].function.name")
    r = ask(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "other"}})
    assert (r.status_code, r.json()["error"]["param"]) == (400, "tool_choice")
    r = ask(tools=[WEATHER], tool_choice="required", structured_outputs={"json_object": True})
    assert (r.status_code, r.json()["error"]["param"]) == (400, "tool_choice")


def test_a_template_without_tools_refuses_them(daemon):
    r = daemon.http.post("/v1/chat/completions", json={"messages": ASK, "tools": [WEATHER]})
    assert r.status_code == 400 and r.json()["error"]["param"] == "tools"


def test_reasoning_that_the_prompt_has_opened(chat):
    """Without the end of reasoning all is reasoning, whole and streamed."""
    kind = dict(extra_body={"chat_template_kwargs": {"enable_thinking": True}}, tools=None, max_tokens=12)
    r = chat(**kind)
    assert r.choices[0].message.reasoning_content and not r.choices[0].message.content
    assert r.choices[0].message.reasoning == r.choices[0].message.reasoning_content
    assert r.usage.completion_tokens_details.reasoning_tokens > 0
    content, reasoning, _, finish = joined(chat(**kind, stream=True))
    assert (content, reasoning, finish) == ("", r.choices[0].message.reasoning_content, "length")
    kind["extra_body"]["reasoning_format"] = "none"
    raw = chat(**kind).choices[0].message
    assert raw.content.strip() == reasoning and not hasattr(raw, "reasoning_content")


def test_a_budget_of_reasoning_is_kept(chat):
    kind = dict(extra_body={"chat_template_kwargs": {"enable_thinking": True}, "thinking_token_budget": 5},
                tools=None, max_tokens=40)
    r = chat(**kind)
    assert r.choices[0].message.reasoning_content and r.choices[0].message.content
    assert r.usage.completion_tokens_details.reasoning_tokens <= 5 + 6
    content, reasoning, _, _ = joined(chat(**kind, stream=True))
    assert (content, reasoning) == (r.choices[0].message.content, r.choices[0].message.reasoning_content)
    kind["tools"], kind["tool_choice"], kind["max_tokens"] = [WEATHER], "required", 200
    message = chat(**kind, parallel_tool_calls=False).choices[0].message
    assert message.reasoning_content
    check(message.tool_calls[0], "get_weather")


@pytest.fixture(scope="module")
def coder():
    got = subprocess.run([str(HERE.parents[1] / "tools/get-model.sh"), "--cached", "qwen-coder"],
                         capture_output=True, text=True)
    path = got.stdout.strip()
    if not path:
        pytest.skip("tools/get-model.sh qwen-coder has not fetched the model: " + (got.stderr.strip() or "not in the cache"))
    d = Daemon("--model", path, "--max-model-len", "2048", "--max-num-seqs", "4")
    yield d
    d.wait_free()
    d.stop()


def test_a_model_that_has_learnt_tools_calls_them(coder):
    ask = dict(model="", messages=ASK, tools=[WEATHER, ADD], temperature=0, max_tokens=128)
    first = coder.client.chat.completions.create(**ask).choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.function.name == "get_weather" and "paris" in json.loads(call.function.arguments)["city"].lower()
    content, _, calls, finish = joined(coder.client.chat.completions.create(**ask, stream=True))
    assert finish == "tool_calls" and [c[1:] for c in calls] == [[call.function.name, call.function.arguments]]
    del ask["tools"]  # with them it calls again and again
    ask["messages"] = [*ASK, first.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "rain, 12 degrees"}]
    answer = coder.client.chat.completions.create(**ask).choices[0].message.content
    assert "12" in answer or "rain" in answer


def test_inspect_says_how_calls_are_read(coder):
    path = re.search(r'model="?([^"\s]+\.gguf)', " ".join(coder.process.args).replace("--model ", "model=")).group(1)
    text = vramd("inspect", path).stdout
    assert "tool calls  hermes, which gave back two calls" in text and "reasoning   none" in text
    assert "variables   none" in text


PAGE = (DOCS / "tools.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S))
def test_an_example_of_the_page_runs_and_prints(tools, capsys, code):
    exec(compile(code.replace("http://127.0.0.1:8000", tools.url).replace("MODEL", ""), "tools.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_page_lists_every_format():
    rows = re.findall(r'\.name = "([^"]+)"', (HERE.parents[1] / "text/reply/reply_formats.c").read_text())
    assert len(rows) > 20 and all(f"`{row}`" in PAGE for row in rows)
