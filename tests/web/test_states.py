"""The page where the server is not the plain one of the other tests: with documents, another watermark, several models,
recurrent states, speculation, calls of tools, a device."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import httpx
import pytest

import test_recurrent
import tiny_model
from harness import BINARY, Daemon
from load import Load
from test_memory_view import near, rows, size
from test_playground import answered, ask, start
from test_speculation import EDIT

HERE = Path(__file__).resolve().parent
PLUGIN = os.environ.get("VRAMD_TEST_CUDA_PLUGIN") or str(Path(BINARY).parent / "vramd-cuda-shim.so")


@contextlib.contextmanager
def served(page, *options, **more):
    d = Daemon(*options, **more)
    try:
        yield d
    finally:
        page.driver.get("about:blank")
        d.stop()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    tiny_model.write(path, "F16")
    return ["--model", str(path), "--max-model-len", "1024", "--max-num-seqs", "4"]


def looks_right(page):
    """In both languages; and on a phone nothing lies beyond the edge."""
    for _ in range(2):
        assert page.audit() == []
        page.size(320, 640)
        page.wait(lambda: page.js("return innerWidth") == 320)
        assert page.js("return document.documentElement.scrollWidth") == 320
        page.size(1280, 900)
        page.click("#language")


def test_documents_are_linked_where_they_are(page, tiny, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.html").write_text("<link rel=icon href=\"data:,\"><title>x</title><h1>The manual</h1>")
    with served(page, *tiny, "--docs-dir", str(tmp_path / "docs")) as d:
        page.open(d.url)
        page.live()
        for label in ("Documentation", "文档"):
            link = page.find("#docs")
            assert link.is_displayed() and link.get_attribute("aria-label") == link.get_attribute("title") == label
            page.click("#language")
        looks_right(page)
        page.click("#docs")  # the page stays where it is
        page.driver.switch_to.window(page.driver.window_handles[1])
        page.wait_text("h1", "The manual")
        page.driver.close()
        page.driver.switch_to.window(page.driver.window_handles[0])


def test_no_documents_no_link(page, tiny, tmp_path):
    shutil.copy(BINARY, tmp_path / "vramd")  # a build may have them beside the program
    with served(page, *tiny, binary=str(tmp_path / "vramd")) as d:
        assert httpx.get(d.url + "/docs/").status_code == 404
        page.open(d.url)
        page.live()
        assert not page.visible("#docs")


def test_the_watermark_is_the_servers(page):
    with served(page, "--max-model-len", "1024", "--max-num-seqs", "4", "--kv-cache-tokens", "1024", "--watermark", "500") as d:
        (g,) = d.memory()["kv"]["groups"]
        assert g["watermark"] == g["blocks"] / 2
        page.open(d.url)
        page.live()
        page.fill("#fit-tokens", "500")  # half of the pool, which is there until another request runs
        page.wait_text(".of-fit .big", "Yes")
        with Load(d.url, 1, tokens=800, longest=3):
            kept = page.wait(lambda: re.search(r"but (\S+ \S+) stay free", page.text(".of-fit .note")))
            assert near(kept[1], g["watermark"] * g["block_bytes"]) and page.text(".of-fit .big") == "Not now"


def test_several_models(page, tmp_path):
    text = "[model]\nmax_model_len = 256\n[scheduler]\nmax_num_seqs = 4\n[memory]\ngrammar_cache_bytes = 1MiB\nrequest_memory = 16MiB\n"
    names = ["a", "b", "one-with-a-rather-long-name-instruct"]
    for i, name in enumerate(names):
        tiny_model.write(tmp_path / f"{name}.gguf", "F16", layers=2 + i % 2)
        text += f"[model {name}]\nfile = {tmp_path / name}.gguf\n"
    (tmp_path / "vramd.conf").write_text(text)
    with served(page, "--config", str(tmp_path / "vramd.conf"), model=None) as d:
        page.open(d.url)
        page.live()
        m = d.memory()
        table = page.wait(lambda: page.js("return [...document.querySelectorAll('.card.models tbody tr')].map(r => [...r.children].map(c => c.textContent))"))
        assert [r[0] for r in table] == names == [x["id"] for x in m["models"]]
        assert all(r[1] == "ready" and near(r[2], x["plan_bytes"]) and near(r[3], x["ledger_bytes"]) for r, x in zip(table, m["models"])), table
        (kv,) = [c["ledger_bytes"] for c in m["classes"] if c["class"] == "kv"]
        assert near(page.text(".of-kv .big"), kv) and "3 models" in page.text(".of-kv .note")
        assert page.text(".of-largest h2") == "Largest model" and page.text(".of-largest .big").endswith(" b") and page.text(".of-fit .big") == "Not known"
        for what in (".card.kv", ".card.requests", ".history .chart:has(.c-kv)"):
            assert not page.visible(what), what
        looks_right(page)
        page.view("throughput")
        page.wait(lambda: page.texts(".tile .note")[2] == "")  # no one number of places
        page.view("playground")
        page.fill("#play-model", "b")
        page.fill("#play-max_tokens", "4")
        ask(page, "Hello")
        answered(page)
        assert d.http.get("/v1/memory").json()["models"][1]["requests"] == 0
        page.view("planner")
        page.wait_text(".verdict", "It fits.")


def test_recurrent_states(page, tmp_path):
    path = test_recurrent.write(tmp_path / "m.gguf", "qwen35")
    with served(page, "--model", str(path), *test_recurrent.OPTIONS) as d:
        page.open(d.url)
        page.live()
        with Load(d.url, 3, tokens=300, longest=60):
            page.wait(lambda: len(page.all("canvas.blocks")) == 2)
            (states,) = [c for c in d.memory()["classes"] if c["class"] == "state"]
            n = int(re.match(r"(\d+) slots of", page.text(".pool:nth-child(2) .note"))[1])
            assert page.text(".pool:nth-child(2) h3") == "Recurrent states" and near(page.text(".pool:nth-child(2) .note"), states["plan_bytes"] / n)

            def at_a_slot():
                page.js("document.querySelectorAll('canvas.blocks')[1].focus()")
                page.find(".pool:nth-child(2) canvas").send_keys("\ue014")
                return re.match(r"request \d+ · slots? \d", page.text(".card.kv > .reserve"))
            page.wait(at_a_slot)
            looks_right(page)


def test_speculation(page):
    with served(page, "--max-model-len", "1024", "--max-num-seqs", "4", "--speculative", "lookup") as d:
        start(page, d, max_tokens=60)
        page.click(".segments input[value=completion]")
        ask(page, EDIT)
        answered(page)
        of = dict(zip(page.texts(".receipt dt"), page.texts(".receipt dd")))["Drafts accepted"]
        accepted, drafted = map(int, re.fullmatch(r"(\d+) / (\d+)", of).groups())
        assert 0 < accepted <= drafted
        page.view("throughput")
        page.wait(lambda: page.visible(".tile:nth-child(9)"))
        page.wait(lambda: page.texts(".tile .note")[8] == f"{drafted} drafted")
        assert page.texts(".tile .value")[8] == f"{round(100 * accepted / drafted)} %"
        looks_right(page)


def test_no_speculation_no_tile(page, daemon):
    page.open(daemon.url, "throughput")
    page.wait(lambda: page.text(".tile .value"))
    assert not page.visible(".tile:nth-child(9)")


def test_a_tool_is_called_and_its_result_used(page):
    with served(page, "--max-model-len", "1024", "--max-num-seqs", "4", "--chat-template", str(HERE.parent / "e2e" / "hermes.jinja")) as d:
        start(page, d, max_tokens=64)
        page.click("[data-t=tools_and_schema]")
        page.click(".field:has(#play-tools) + .row [data-t=example]")
        page.fill("#play-choice", "required")
        ask(page, "What is the weather in Paris?")
        assert answered(page) == ""
        assert page.text(".call strong") == "get_weather" and set(json.loads(page.text(".call pre"))) == {"city"}
        assert "calls a tool" in page.text(".turn.assistant header") and not page.visible(".turn.assistant > .text")
        page.fill("#play-choice", "none")
        page.fill(".call textarea", '{"sky": "clear"}')
        page.click(".call button")
        assert answered(page, 2)
        assert page.texts(".turn > header > span:first-child") == ["You", "Model", "Result of the tool", "Model"]
        page.click(".preview summary")
        page.wait_text(".preview pre", '{"sky": "clear"}')
        looks_right(page)


@pytest.mark.skipif(not Path(PLUGIN).exists(), reason="no CUDA plugin for the CPU (make cuda-shim)")
def test_a_device(page, tiny):
    with served(page, *tiny, "--backend", "cuda", "--cuda-plugin", PLUGIN) as d:
        page.open(d.url)
        page.live()
        m = d.memory()["device"]
        (kv,) = [c["plan_bytes"] for c in m["classes"] if c["class"] == "kv"]
        said = page.text(".ledger header .note")
        assert said.startswith(f"{m['name']} · ") and near(said, m["ledger_bytes"]) and abs(size(page.text(".of-kv .big").split("of")[1]) - kv) < 2**21
        table = page.js("return [...document.querySelectorAll('.ledger > .scroll tbody th')].map(e => e.textContent)")
        assert "Weights" in table and "Device context" in table and "Tokenizer" not in table
        assert page.visible(".host-classes") and "Counted by the driver" in page.text(".ledger .facts")
        page.click(".host-classes summary")
        assert "Tokenizer" in page.texts(".host-classes tbody th")
        with Load(d.url, 2, tokens=200, longest=60):
            page.wait(lambda: len(rows(page)) == 2 and size(page.text(".of-kv .big")) > 0)
            looks_right(page)
        page.view("planner")
        page.wait_text(".verdict", "It fits.")
        looks_right(page)
