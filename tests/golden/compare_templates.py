#!/usr/bin/env python3
"""Compares the prompts of a running server with those of jinja2, over the conversations of make_jinja_golden.py as an
OpenAI client sends them. The server must run with trust_request_chat_template; jinja2 3.1 must be installed.

    tests/golden/compare_templates.py http://127.0.0.1:8000 FOLDER...     every *.jinja of the folders

What a template is given is normalised here by other code than the server's, as vLLM does: content in parts as a list or as
one text, arguments as objects, developer as system, null content as "" unless that makes no difference, both names of
reasoning. Prints a line for each difference, and the counts; fails where there is one."""
import collections
import copy
import datetime
import json
import pathlib
import sys
import urllib.error
import urllib.request

import jinja2.nodes as N
import jinja2.visitor

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import make_jinja_golden as golden  # noqa: E402

TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
BESIDE = ("tools", "documents", "add_generation_prompt", "reasoning_effort")


def post(url, body):
    r = urllib.request.Request(url + "/apply-template", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        return json.load(urllib.request.urlopen(r))["prompt"], None
    except urllib.error.HTTPError as e:
        return None, json.load(e)["error"]


def peeled(n):
    while isinstance(n, N.Filter):
        n = n.node
    return n


def takes_parts(tree):
    """Whether a loop goes through the content of a message, directly or by a name that was given it."""
    names, macros = set(), {m.name: m for m in tree.find_all(N.Macro)}

    def is_content(n):
        n = peeled(n)
        return (isinstance(n, N.Getattr) and n.attr == "content" or isinstance(n, N.Getitem) and isinstance(n.arg, N.Const)
                and n.arg.value == "content" or isinstance(n, N.Name) and n.name in names)
    while True:
        before = len(names)
        names |= {a.target.name for a in tree.find_all(N.Assign) if isinstance(a.target, N.Name) and is_content(a.node)}
        for c in tree.find_all(N.Call):
            m = macros.get(c.node.name) if isinstance(c.node, N.Name) else None
            if m:
                names |= {p.name for p, a in zip(m.args, c.args) if is_content(a)}
        if len(names) == before:
            return any(is_content(f.iter) for f in tree.find_all(N.For))


def one_text(content):
    return "\n".join(p["text"] for p in content) if isinstance(content, list) else content


def normalised(messages, source, parts, none):
    out = []
    for m in copy.deepcopy(messages):
        m = {k: v for k, v in m.items() if v is not None or k == "content"}
        if m["role"] == "developer" and "developer" not in source:
            m["role"] = "system"
        if not parts:
            m["content"] = one_text(m["content"])
        if m["content"] is None and not none:
            m["content"] = ""
        for a, b in (("reasoning_content", "reasoning"), ("reasoning", "reasoning_content")):
            if a in m:
                m.setdefault(b, m[a])
        for c in m.get("tool_calls", []):
            if isinstance(c["function"]["arguments"], str):
                c["function"]["arguments"] = json.loads(c["function"]["arguments"] or "{}")
        out.append(m)
    return out


def render(template, variables):
    try:
        return template.render(**variables), None
    except Exception as e:  # whatever a template does wrong
        return None, f"{type(e).__name__}: {e}"


def shows_none_as_empty(template, tokens):
    def talk(content):
        call = golden.call("f", {}, "call00001")
        return ([golden.message("user", "Hi"), golden.message("assistant", content, tool_calls=[call]),
                 golden.message("tool", "r", name="f", tool_call_id="call00001")],
                [golden.message("user", "Hi"), golden.message("assistant", content)])
    pairs = []
    for none, empty in zip(talk(None), talk("")):
        a, b = (render(template, {**tokens, "tools": None, "documents": None, "add_generation_prompt": True, "messages": m})
                for m in (none, empty))
        if b[0] is not None:
            pairs.append(a == b)
    return bool(pairs) and all(pairs)


def as_sent(conversation):
    """The body that a client sends: arguments as text, other variables as chat_template_kwargs."""
    body = {k: copy.deepcopy(v) for k, v in conversation.items() if k == "messages" or k in BESIDE}
    for m in body["messages"]:
        for c in m.get("tool_calls", []):
            c["function"]["arguments"] = json.dumps(c["function"]["arguments"])
    kwargs = {k: v for k, v in conversation.items() if k not in body}
    return {**body, **({"chat_template_kwargs": kwargs} if kwargs else {})}


def main():
    url, folders = sys.argv[1].rstrip("/"), sys.argv[2:]
    show = "".join("{{ (%s|tojson if %s is defined else 'null') ~ '\\n' }}" % (t, t) for t in TOKENS)
    texts = post(url, {"messages": [golden.message("user", "x")], "chat_template": show})[0]
    tokens = {t: v for t, v in zip(TOKENS, map(json.loads, texts.splitlines())) if v is not None}
    env, counts = golden.environment(), collections.Counter()
    env.globals["strftime_now"] = lambda f: datetime.datetime.now().strftime(f)
    for file in sorted(f for folder in folders for f in pathlib.Path(folder).glob("*.jinja")):
        source = file.read_text()
        try:
            template, tree = env.from_string(source), env.parse(source)
        except jinja2.exceptions.TemplateError as e:
            counts["templates that jinja2 refuses"] += 1
            print(f"{file.name}: jinja2 refuses it: {e}")
            continue
        counts["templates"] += 1
        parts, none = takes_parts(tree), shows_none_as_empty(template, tokens)
        for i, talk in enumerate(golden.conversations()):
            got, why = post(url, {**as_sent(talk), "chat_template": source})
            given = {**tokens, "tools": None, "documents": None, "add_generation_prompt": True, **talk}
            given["messages"] = normalised(talk["messages"], source, parts, none)
            want, error = render(template, given)
            if got is not None and got == want:
                counts["the same prompt"] += 1
            elif got is None and want is None:
                counts["refused by both"] += 1
            elif got is None and why["code"] == "unsupported_parameter":
                counts["refused: the template does not show tools or calls"] += 1
            elif got is None:
                counts["refused here alone"] += 1
                print(f"{file.name}, conversation {i}: refused: {why['message']}")
            else:
                counts["another prompt"] += 1
                at = next((k for k, (a, b) in enumerate(zip(got, want or "")) if a != b), min(len(got), len(want or "")))
                print(f"{file.name}, conversation {i}: {error or ''} at {at}: {got[max(0, at - 30):at + 30]!r}, jinja2 "
                      f"{(want or '')[max(0, at - 30):at + 30]!r}")
    for what, n in counts.items():
        print(f"{n:6} {what}")
    return 1 if counts["another prompt"] or counts["refused here alone"] else 0


if __name__ == "__main__":
    sys.exit(main())
