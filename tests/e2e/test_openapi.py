"""GET /openapi.json: every path that the server has, and every parameter of its table."""

import re

import pytest

from harness import OPTIONS, ROOT, Daemon


@pytest.fixture(scope="module")
def server():
    d = Daemon(*OPTIONS, "--ollama-api")
    yield d
    d.stop()


def test_paths_are_those_of_the_server(server, daemon):
    doc = server.http.get("/openapi.json").json()
    assert doc["openapi"].startswith("3.1") and doc["info"]["version"] == server.http.get("/version").json()["version"]
    table = re.findall(r'^    \{"(/[^"]*)", ([^}]*),\s+(\w+)\},', (ROOT / "api/routes.c").read_text(), re.M)
    want = {path + ("{name}" if "PREFIX" in flags else ""): {m for m in ("get", "post", "put", "delete") if m.upper() in flags.split(" | ")}
            for path, flags, run in table if run != "NULL"}
    assert {p: set(v) for p, v in doc["paths"].items()} == want and len(want) > 30
    for path, operations in doc["paths"].items():
        for name, o in operations.items():
            assert o["summary"] and o["summary"] != path and "200" in o["responses"] and "4XX" in o["responses"], path
            if name == "get" and "{" not in path and "text/event-stream" not in o["responses"]["200"].get("content", {}):
                r = server.http.get(path, follow_redirects=True)
                assert r.status_code == 200 or path == "/docs", path  # it may not be installed
                for content in o["responses"]["200"].get("content", {"": 0}):
                    assert r.headers.get("content-type", "").startswith(content), path
    assert not [p for p in daemon.http.get("/openapi.json").json()["paths"] if p.startswith("/api/")]


def test_parameters_are_those_of_the_table(server):
    schemas = server.http.get("/openapi.json").json()["components"]["schemas"]
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/api.md").read_text().split("<!-- parameters")[1], re.M)
    assert set(rows) == set(schemas["Completion"]["properties"]) | set(schemas["Chat"]["properties"])
    assert "messages" not in schemas["Completion"]["properties"] and schemas["Chat"]["required"] == ["messages"]
    chat = schemas["Chat"]["properties"]
    assert chat["temperature"]["maximum"] == 2 and chat["stream"]["type"] == ["boolean", "null"] and chat["mirostat"]["enum"] == [None, 0]
    for name, schema in chat.items():
        for value in schema.get("enum", []) if schema.get("deprecated") else []:
            r = server.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, name: value})
            assert r.status_code == 200, (name, value, r.text)
