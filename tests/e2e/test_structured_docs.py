"""The requests in docs/structured-output.md are answered in the form that they ask for."""

import json
import pathlib
import re

import jsonschema

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "structured-output.md"


def test_examples(daemon):
    bodies = [json.loads(b) for b in re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.S)]
    forms = []
    for body in bodies:
        r = daemon.http.post("/v1/chat/completions", json={"temperature": 1, "seed": 1, **body})
        assert r.status_code == 200, r.text
        choice = r.json()["choices"][0]
        text = choice["message"]["content"]
        tags = body.get("response_format", {}).get("triggers")
        assert choice["finish_reason"] == "stop" or tags, text
        if tags:
            for rest in text.split(tags[0])[1:]:
                assert re.match(r"ll>[1-6]</roll>", rest) or rest == text.split(tags[0])[-1], text
            forms.append("tags")
        elif body.get("response_format", {}).get("type") == "structural_tag":
            assert re.fullmatch(r"<think>[a-z ]{1,40}</think>(yes|no)", text), text
            forms.append("format")
        elif "response_format" in body:
            jsonschema.validate(json.loads(text), body["response_format"]["json_schema"]["schema"])
            forms.append("schema")
        elif "grammar" in body:
            assert re.fullmatch(r"[1-9][0-9]{0,2} \+ [1-9][0-9]{0,2}", text), text
            forms.append("grammar")
        elif "json" in body["structured_outputs"]:
            jsonschema.validate(json.loads(text), body["structured_outputs"]["json"])
            assert not re.search(r"\s", text), text
            forms.append("compact")
        elif "choice" in body["structured_outputs"]:
            assert text in body["structured_outputs"]["choice"]
            forms.append("choice")
        else:
            assert re.fullmatch(body["structured_outputs"]["regex"], text), text
            forms.append("regex")
    assert sorted(forms) == ["choice", "compact", "format", "grammar", "regex", "schema", "tags"]


def test_a_refusal_reads_as_documented(daemon):
    schema = {"properties": {"tags": {"type": "array", "uniqueItems": True}}}
    r = daemon.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], "guided_json": schema})
    message = r.json()["error"]["message"]
    assert r.status_code == 400 and message in DOCS.read_text(), message
