"""The page as a whole: keys, phones, languages, what assistive technology gets, API keys, a server that restarts, loads, drains."""

import contextlib
import re
import signal
import socket
from pathlib import Path

import pytest

from browser import VIEWS, Browser
from harness import Daemon, vramd
from load import Load

WEB = Path(__file__).resolve().parents[2] / "web"
ARROW_LEFT, ARROW_RIGHT, END, ENTER, TAB = "\ue012", "\ue014", "\ue010", "\ue007", "\ue004"
OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true })"


def settled(page, daemon):
    """All views have what they show when nothing is asked of them."""
    page.open(daemon.url)
    page.live()
    for name in VIEWS:
        page.view(name)
        page.js(OPEN_ALL)
    page.wait(lambda: page.all(".plan-answer .verdict"))
    page.view("playground")
    page.fill("#play-max_tokens", "12")
    page.fill("#draft", "Hello")
    page.find("#draft").send_keys(ENTER)
    page.wait(lambda: page.all(".turn .receipt:not([hidden])"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_roles_names_and_contrast(page, daemon, dark):
    page.dark(dark)
    with Load(daemon.url, 1, tokens=300, longest=90):
        settled(page, daemon)
        for language in ("en", "zh-Hans"):
            assert page.js("return document.documentElement.lang") == language
            for name in VIEWS:
                page.view(name)
                if name == "memory":
                    page.wait(lambda: page.all(".sequences tbody tr"))
                assert page.audit() == [], (name, language)
            page.click("#language")


def test_320_pixels(page, daemon):
    """No view is wider than the screen, and nothing lies beyond its edge but what scrolls by itself."""
    page.size(320, 640)
    with Load(daemon.url, 1, tokens=300, longest=90):
        settled(page, daemon)
        for _ in range(2):
            for name in VIEWS:
                page.view(name)
                wide = page.js("""const beyond = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && e.getBoundingClientRect().right > 321
                    && !e.closest('.scroll, .code, .skip, .away, .visually-hidden, .tabs, svg, .stack'));
                    return [document.documentElement.scrollWidth, ...beyond.slice(0, 5).map(e => e.outerHTML.slice(0, 120))]""")
                assert wide == [320], (name, wide)
            page.click("#language")


def test_keys_alone(page, daemon):
    page.open(daemon.url)
    page.live()
    body = page.find("body")
    body.send_keys(TAB)
    assert page.js("return document.activeElement.className") == "skip"
    body.send_keys(TAB)
    assert page.js("return document.activeElement.id") == "tab-memory"
    for key, name in ((ARROW_RIGHT, "throughput"), (END, "planner"), (ARROW_RIGHT, "memory"), (ARROW_LEFT, "planner"), (ARROW_LEFT, "playground")):
        page.driver.switch_to.active_element.send_keys(key)
        assert page.js("return [document.activeElement.id, location.hash]") == [f"tab-{name}", f"#{name}"]
        assert page.visible(f"#panel-{name}")
    seen = set()
    for _ in range(32):
        page.driver.switch_to.active_element.send_keys(TAB)
        here = page.js("const e = document.activeElement; const s = getComputedStyle(e); return [e.id || e.dataset.t || e.className, e.matches(':focus-visible') "
                       "&& s.outlineStyle !== 'none' || Boolean(e.closest('.segments'))]")
        if here[0] and here[0] != "skip":
            assert here[1], f"no focus is seen on {here[0]}"
        seen.add(here[0])
    assert {"language", "theme", "draft", "send", "copy_curl", "play-model", "play-temperature"} <= seen, seen


def test_both_languages(page, daemon):
    text, word = (WEB / "words.js").read_text(), r"'((?:[^'\\]|\\.)+)'"
    rows = re.findall(rf"^  (\w+): \[{word}, {word}\],$", text, re.M)
    assert len(rows) == text.count(": [") > 250
    en, zh = {k: e for k, e, _ in rows}, {k: z for k, _, z in rows}
    assert len(en) == len(rows) and {k for k, e, z in rows if set(re.findall(r"\{\w+\}", e)) != set(re.findall(r"\{\w+\}", z))} == set()
    code = "".join(f.read_text() for f in WEB.glob("*.js") if not f.name.startswith(("words", "dom"))) + (WEB / "index.html").read_text()
    used = set(re.findall(r"\bt\('(\w+)'", code)) | set(re.findall(r"\b(?:t|tLabel|tTitle|tHint): '(\w+)'", code)) | set(re.findall(r'data-t(?:-\w+)?="(\w+)"', code))
    assert used <= en.keys(), used - en.keys()
    page.open(daemon.url)
    page.live()
    page.click("#language")
    assert page.js("return document.documentElement.lang") == "zh-Hans" and page.text("#status") == "服务中"
    assert page.texts("[role=tab]") == ["内存", "吞吐", "试用", "规划"]
    words = page.js("return [...document.querySelectorAll('[data-t]')].map(e => [e.dataset.t, e.textContent])")
    assert [w for w in words if w[0] in zh and w[1] != zh[w[0]].replace("\\\\", "\\")] == []
    page.driver.refresh()
    page.wait_text("#status", "服务中")
    page.click("#language")
    page.live()


def test_a_browser_in_chinese_gets_chinese(daemon):
    b = Browser("zh-CN")
    try:
        b.open(daemon.url)
        b.wait_text("#status", "服务中")
        assert b.errors() == []
    finally:
        b.close()


def test_colours(page, daemon):
    page.open(daemon.url)
    page.live()
    back = lambda: page.js("return getComputedStyle(document.body).backgroundColor")
    light = back()
    page.dark(True)
    dark = back()
    assert light != dark
    page.click("#theme")  # light, whatever the system says
    assert back() == light
    page.click("#theme")
    page.dark(False)
    assert back() == dark
    page.driver.refresh()
    page.live()
    assert back() == dark


def test_the_planner(page, daemon):
    page.open(daemon.url, "planner")
    page.wait_text(".verdict", "It fits.")
    plan = daemon.http.post("/v1/plan", json={"grid": True}).json()
    assert len(page.all(".card.terms tbody tr")) == len(plan["terms"]) and len(page.all(".goal")) == len(plan["recommended"])
    assert page.texts(".goal pre") == [r["conf"] or "# nothing to change" for r in plan["recommended"]]
    page.fill("#plan-memory", "150 MiB")
    page.click("#panel-planner [data-t=plan_it]")
    page.wait_text(".verdict", "It does not fit.")
    page.fill("#plan-memory", "2GiB")
    page.fill("#plan-seqs", "64")
    page.fill("#plan-kv", "int8")
    page.click("#plan-fit")
    page.click("#panel-planner [data-t=plan_it]")
    page.wait(lambda: "2.0 GiB" in page.text(".verdict") and "q8_0" in page.text(".plan-answer"))
    page.fill("#plan-memory", "much")
    page.click("#panel-planner [data-t=plan_it]")
    page.wait_text(".plan-form .bad", "much")
    page.allowed = ("400 (Bad Request)",)
    page.fill("#plan-memory", "")
    page.fill("#plan-len", "100000000")
    page.click("#panel-planner [data-t=plan_it]")
    page.wait_text(".plan-form .bad", "max_model_len")


def test_a_key_is_asked_for_and_forgotten_with_the_tab(page, tmp_path):
    keys = tmp_path / "keys"
    keys.touch(0o600)
    made = [vramd("key", "alice"), vramd("key", "root", "admin")]
    keys.write_text("".join(m.stdout for m in made))
    alice, root = (re.search(r"vk-[0-9a-f]{64}", m.stderr)[0] for m in made)
    page.allowed = ("401 (Unauthorized)",)
    d = Daemon("--max-model-len", "512", "--max-num-seqs", "4", "--api-keys-file", str(keys))
    try:
        page.open(d.url)
        page.wait(lambda: page.visible("dialog"))
        assert page.text("#status") == "Key needed" and page.audit() == []
        for text in ("vk-" + "0" * 64, alice):
            page.fill("#key-text", text)
            page.find("#key-text").send_keys(ENTER)
            if text != alice:
                page.wait_text("dialog", "does not know this key")
        page.live()
        assert page.js("return [localStorage.length, document.cookie, sessionStorage.getItem('vramd.key')]") == [0, "", alice]
        assert alice not in page.js("return document.documentElement.outerHTML")
        page.click(".move summary")
        page.wait_text(".budget-form .reserve", "operator")
        assert not page.find("#budget-text").is_enabled()
        page.view("throughput")
        page.wait(lambda: page.visible(".card.keys"))
        assert page.js("return [...document.querySelectorAll('.card.keys tbody th')].map(e => e.textContent)") == ["alice"]
        page.view("memory")
        page.driver.refresh()
        page.live()
        page.driver.switch_to.new_window("tab")
        page.driver.get(d.url)
        page.wait(lambda: page.visible("dialog"))
        page.fill("#key-text", root)
        page.find("#key-text").send_keys(ENTER)
        page.live()
        page.view("throughput")
        page.wait(lambda: len(page.all(".card.keys tbody tr")) == 2)
        page.driver.close()
        page.driver.switch_to.window(page.driver.window_handles[0])
    finally:
        page.driver.get("about:blank")
        d.stop()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_server_that_restarts(page):
    options = ["--max-model-len", "512", "--max-num-seqs", "4", "--port", str(free_port())]
    page.allowed = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "503 (Service Unavailable)")
    first = Daemon(*options)
    stopped = False
    try:
        page.open(first.url)
        page.live()
        with Load(first.url, 1, tokens=300, longest=90), contextlib.suppress(Exception):
            page.wait(lambda: page.all(".sequences tbody tr"))
            first.process.send_signal(signal.SIGTERM)
            page.wait_text("#status", "Draining")
            assert "shutting down" in page.text("#banner")
        first.stop()
        stopped = True
        page.wait_text("#status", "No answer")
        page.wait_text("#banner", "next attempt")
        assert page.text(".of-kv .big"), "the last figures stay, marked as old"
        assert page.js("return document.querySelector('main').className") == "stale"
        second = Daemon(*options, wait=False)
        try:
            page.live()
            second.wait_ready()
            page.wait(lambda: not page.visible("#banner"))
            page.wait(lambda: not page.all(".sequences tbody tr"))
        finally:
            page.driver.get("about:blank")
            second.stop()
    finally:
        if not stopped:
            first.stop()


def test_a_slow_start_is_said(page, daemon):
    """What the page says of each state of the server, without a server that has them all."""
    page.open(daemon.url)
    page.live()
    for phase, tone, banner in (("loading", "loading", "The model is loading"), ("stalled", "loading", "No step has ended"), ("failed", "gone", "could not be loaded"),
                                ("draining", "draining", "shutting down"), ("ready", "live", None)):
        page.js("return import('/web/feed.js').then(m => { m.feed.phase = arguments[0]; m.tell(); })", phase)
        page.wait(lambda: tone in page.find("#status").get_attribute("class"))
        assert page.visible("#banner") == bool(banner) and (banner or "") in page.text("#banner")
