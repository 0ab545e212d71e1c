"""Structured output: every answer has the form that was asked for, whatever the model would say.

STRUCTURED_N=1000 (make structured) draws as many answers of each schema as that; in CI a few."""

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest

N = int(os.environ.get("STRUCTURED_N", 3))
LINE = {"type": "object", "required": ["sku", "n"], "properties": {
    "sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}, "n": {"type": "integer", "minimum": 1, "maximum": 99}}}
TREE = {"$ref": "#/$defs/node", "$defs": {"node": {
    "type": "object", "required": ["label"], "additionalProperties": False,
    "properties": {"label": {"enum": ["a", "b"]}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}}}}}
SCHEMAS = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": -20, "maximum": 300},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    "number": {"type": "number", "exclusiveMinimum": 0.5, "maximum": 12.25},
    "enum": {"enum": ["red", "green", 3, None, ["x"]]},
    "const": {"const": {"a": [1, "é"]}},
    "short": {"type": "string", "minLength": 2, "maxLength": 9},
    "pattern": {"type": "string", "pattern": "^(ab|[c-f]{2}\\d)+$", "maxLength": 20},
    "date": {"type": "string", "format": "date"},
    "uuid": {"type": "string", "format": "uuid"},
    "email": {"type": "string", "format": "email"},
    "list": {"type": "array", "items": {"type": "integer", "maximum": 9, "minimum": 0}, "minItems": 2, "maxItems": 5},
    "tuple": {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}], "items": False},
    "person": {"type": "object", "required": ["name", "age"], "additionalProperties": False, "properties": {
        "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"}}},
    "order": {"type": "object", "required": ["id", "lines"], "properties": {
        "id": {"type": "integer", "minimum": 0, "maximum": 9999}, "lines": {"type": "array", "items": LINE, "minItems": 1, "maxItems": 3}}},
    "tree": TREE,
    "any_of": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 5}, {"type": "string", "maxLength": 4}]},
    "one_of": {"oneOf": [
        {"type": "object", "required": ["kind", "r"], "properties": {"kind": {"const": "circle"}, "r": {"type": "integer", "minimum": 0, "maximum": 9}}},
        {"type": "object", "required": ["kind", "w"], "properties": {"kind": {"const": "square"}, "w": {"type": "boolean"}}}]},
    "all_of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 8}, {"not": {"enum": ["x"]}}]},
    "map": {"type": "object", "patternProperties": {"^k[0-9]$": {"type": "integer", "minimum": 0, "maximum": 9}},
            "additionalProperties": False, "maxProperties": 3},
}


def ask(daemon, **more):
    body = {"messages": [{"role": "user", "content": "Answer in JSON."}], "max_tokens": 400, "temperature": 1.3, **more}
    r = daemon.http.post("/v1/chat/completions", json=body, timeout=300)
    assert r.status_code == 200, r.text
    return r.json()["choices"]


def form(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def check(schema, choice):
    if choice["finish_reason"] == "length":  # valid as far as it goes, and long strings may go far
        return 0
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["message"]["content"]), schema,
                        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER, cls=jsonschema.Draft202012Validator)
    return 1


@pytest.mark.parametrize("name", SCHEMAS)
def test_answers_are_valid(daemon, name):
    schema = SCHEMAS[name]
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda i: ask(daemon, response_format=form(schema), seed=i), range(N)))
    assert sum(check(schema, c) for choices in lists for c in choices) >= 0.9 * N


def test_other_ways_to_ask(daemon):
    for more in ({"guided_json": SCHEMAS["person"]}, {"structured_outputs": {"json": SCHEMAS["person"]}},
                 {"json_schema": SCHEMAS["person"]}, {"guided_json": json.dumps(SCHEMAS["person"])}):
        for c in ask(daemon, n=2, **more):
            check(SCHEMAS["person"], c)
    for c in ask(daemon, n=3, response_format={"type": "json_object"}):
        check({"type": "object"}, c)
    words = ["yes", "no", "not sure"]
    for more in ({"structured_outputs": {"choice": words}}, {"guided_choice": words}):
        assert {c["message"]["content"] for c in ask(daemon, n=4, **more)} <= set(words)
    for c in ask(daemon, n=3, guided_regex="(\\d{3}-)?[a-f]{2,5}x"):
        assert re.fullmatch("(\\d{3}-)?[a-f]{2,5}x", c["message"]["content"])
    for c in ask(daemon, n=3, grammar='root ::= "<" item ("," item){1,3} ">"\nitem ::= [a-z]{1,4} | "7"'):
        assert re.fullmatch("<([a-z]{1,4}|7)(,([a-z]{1,4}|7)){1,3}>", c["message"]["content"])
    r = daemon.complete("1 + 1 =", guided_regex=" ?[0-9]", max_tokens=5)
    assert re.fullmatch(" ?[0-9]", r.json()["choices"][0]["text"])


def test_text_is_free_but_for_tags(daemon):
    tag = {"begin": "<n>", "schema": {"type": "integer", "minimum": 1, "maximum": 20}, "end": "</n>"}
    old = {"type": "structural_tag", "triggers": ["<n"], "structures": [tag]}
    new = {"type": "structural_tag", "format": {
        "type": "triggered_tags", "triggers": ["<n"], "at_least_one": True, "stop_after_first": True,
        "tags": [{"begin": "<n>", "content": {"type": "json_schema", "json_schema": tag["schema"]}, "end": "</n>"}]}}
    prompt = [{"role": "user", "content": "Repeat exactly: <n>7</n> <n>12</n> <n>3</n>"}]
    free = ask(daemon, messages=prompt, temperature=0, max_tokens=40)[0]["message"]["content"]
    text = ask(daemon, messages=prompt, temperature=0, max_tokens=40, response_format=old)[0]["message"]["content"]
    for rest in text.split("<n")[1:-1]:
        assert re.match(r">([1-9]|1[0-9]|20)</n>", rest), text
    if "<n" not in free:
        assert text == free  # where no tag comes up nothing is changed
    for more in ({"response_format": new}, {"structured_outputs": {"structural_tag": json.dumps(new)}}):
        c = ask(daemon, messages=prompt, max_tokens=300, **more)[0]
        if c["finish_reason"] == "stop":
            assert re.search(r"<n>([1-9]|1[0-9]|20)</n>$", c["message"]["content"]), c


def test_free_text_of_a_limited_length(daemon):
    def bounded(content, **more):
        end = {"type": "tag", "begin": "[", "content": content, "end": "]"}
        c = ask(daemon, response_format={"type": "structural_tag", "format": end}, max_tokens=60, logprobs=True, **more)[0]
        assert c["finish_reason"] == "stop", c
        return [t["token"] for t in c["logprobs"]["content"]], c["message"]["content"]
    for seed in range(3):
        tokens, text = bounded({"type": "any_text", "max_tokens": 6}, seed=seed)
        inside = [t for t in tokens if t.strip("[]")]
        assert len(inside) <= 6 and text[0] == "[" and text[-1] == "]" and "]" not in text[1:-1], tokens
        assert len(bounded({"type": "any_text", "max_chars": 9}, seed=seed)[1]) <= 11
    one, text = bounded({"type": "repeat", "min": 2, "max": 2, "content": {"type": "exclude_token"}})
    assert len([t for t in one if t.strip("[]")]) <= 2, one


def test_the_same_bits_alone_and_among_others(daemon):
    def one(seed):
        return ask(daemon, response_format=form(SCHEMAS["order"]), seed=seed, temperature=1)[0]["message"]["content"]
    alone = [one(s) for s in range(4)]
    with ThreadPoolExecutor(16) as pool:
        others = [pool.submit(ask, daemon, max_tokens=60) for _ in range(8)]
        amid = list(pool.map(one, range(4)))
        [o.result() for o in others]
    assert amid == alone


def test_a_form_that_is_complete_ends_the_answer(daemon):
    more = {"structured_outputs": {"choice": ["blue"]}, "min_tokens": 30, "ignore_eos": True, "logprobs": True}
    c = ask(daemon, **more)[0]
    assert c["message"]["content"] == "blue" and c["finish_reason"] == "stop"
    assert "".join(t["token"] for t in c["logprobs"]["content"]) == "blue"
    cut = ask(daemon, structured_outputs={"regex": "[0-9]{300}"}, max_tokens=7)[0]
    assert cut["finish_reason"] == "length" and re.fullmatch("[0-9]+", cut["message"]["content"])
    stopped = ask(daemon, structured_outputs={"regex": "[0-9]{4}x[0-9]{4}"}, stop=["x"])[0]
    assert stopped["finish_reason"] == "stop" and re.fullmatch("[0-9]{4}", stopped["message"]["content"])


def test_streams_are_the_same_text(daemon):
    body = {"messages": [{"role": "user", "content": "Hi"}], "response_format": form(SCHEMAS["person"]), "seed": 3, "max_tokens": 300}
    whole = daemon.http.post("/v1/chat/completions", json=body, timeout=120).json()["choices"][0]["message"]["content"]
    text = ""
    with daemon.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}, timeout=120) as r:
        for line in r.iter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    assert text == whole


@pytest.mark.parametrize("more, words", [
    ({"guided_json": {"type": "array", "uniqueItems": True}}, ["uniqueItems", "#"]),
    ({"guided_json": {"properties": {"a": {"$ref": "https://x.example/y"}}}}, ["$ref", "#/properties/a"]),
    ({"guided_json": {"$ref": "#"}}, ["$ref"]),
    ({"guided_json": {"type": "integer", "minimum": 5, "maximum": 4}}, ["nothing can match"]),
    ({"guided_regex": "(a)\\1"}, ["back reference"]),
    ({"guided_regex": "(((((a{1,1000}){1,1000}){1,1000}){1,1000}){1,1000}b){20000}"}, ["large"]),
    ({"grammar": "root ::= root \"x\" | \"y\""}, ["left-recursive"]),
    ({"grammar": "start: \"x\""}, ["::="]),
    ({"guided_json": {"allOf": [{"anyOf": [{"minimum": i}, {"maximum": -i}, {"type": "string"}]} for i in range(40)]}}, ["alternatives"]),
    ({"guided_regex": "x", "guided_choice": ["x"]}, ["exclude each other"]),
])
def test_what_cannot_be_enforced_is_refused_at_once(daemon, more, words):
    begin = time.monotonic()
    r = daemon.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], **more}, timeout=60)
    assert r.status_code == 400, r.text
    assert all(w in r.json()["error"]["message"] for w in words), r.text
    assert time.monotonic() - begin < 20  # milliseconds; of the large ones, all alternatives would take minutes


def test_memory_is_as_planned(daemon):
    classes = {c["class"]: c for c in daemon.http.get("/v1/memory").json()["classes"]}
    assert classes["grammar"]["plan_bytes"] == classes["grammar"]["ledger_bytes"] > 16 << 20
