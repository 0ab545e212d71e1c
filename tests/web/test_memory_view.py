"""The view of memory: the three answers, the account, blocks, requests, history, moving the budget."""

import re
import time

from load import Load

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size(text):
    """The first size in a text, in bytes."""
    n, unit = re.search(r"([\d.]+) (B|KiB|MiB|GiB)", text).groups()
    return float(n) * UNITS[unit]


def near(text, n):
    return abs(size(text) - n) <= max(0.06 * 2**20, 0.06 * 2**10)


def rows(page):
    return page.js("return [...document.querySelectorAll('.sequences tbody tr')].map(r => [...r.children].map(c => c.textContent))")


def test_the_account_is_that_of_the_server(page, daemon):
    daemon.wait_free()
    page.open(daemon.url)
    page.live()
    m = daemon.memory()
    assert page.text("#model") == daemon.http.get("/v1/models").json()["data"][0]["id"]
    table = page.js("return [...document.querySelectorAll('.ledger .classes tbody tr')].map(r => [...r.children].map(c => c.textContent))")
    shown = [c for c in m["classes"] if c["plan_bytes"] or c["ledger_bytes"] or c["peak_bytes"]]
    assert len(table) == len(shown)
    for row, c in zip(table, shown):
        if c["class"] != "http":  # each connection takes some
            assert near(row[1], c["plan_bytes"]) and near(row[2], c["ledger_bytes"]) and near(row[3], c["peak_bytes"]), (row, c)
    assert near(page.text(".of-kv .big").split("of")[1], sum(g["blocks"] * g["block_bytes"] for g in m["kv"]["groups"]))
    assert "Unaccounted" in page.text(".ledger .facts") and "No request is in the server." in page.text(".requests")


def test_one_more_of_so_many_tokens(page, daemon):
    daemon.wait_free()
    page.open(daemon.url)
    page.live()
    page.wait_text(".of-fit .note", "max_model_len")  # 8,000 at first
    assert page.text(".of-fit .big") == "No" and "1,024" in page.text(".of-fit .note")
    page.fill("#fit-tokens", "1000")
    page.wait_text(".of-fit .big", "Yes")
    assert near(page.text(".of-fit .note"), 63 * 16 * daemon.memory()["kv"]["bytes_per_token"])


def test_32_streams(page, daemon):
    page.open(daemon.url)
    page.live()
    page.js("""window.shift = 0; const row = n => n && (n.closest ? n : n.parentElement)?.closest('.sequences tbody'); // rows change their order
               new PerformanceObserver(l => l.getEntries().forEach(e => { if (!e.sources.every(s => row(s.node))) window.shift += e.value })).observe({type: 'layout-shift'})""")
    with Load(daemon.url, 32, tokens=200, longest=150):
        page.wait(lambda: len(rows(page)) == 32 and sum(r[1] == "running" for r in rows(page)) > 20)
        drawn = "const c = document.querySelector('canvas.blocks'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; " \
                "const s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return s.size"
        assert page.js(drawn) > 8, "sequences have colours of their own"
        held = [size(r[2]) for r in rows(page)]
        assert held == sorted(held, reverse=True), "the largest is first"
        page.wait(lambda: rows(page)[0][0] in page.text(".of-largest .big") and size(page.text(".of-largest .big")) == size(rows(page)[0][2]))
        page.click(".sequences th:nth-child(4) button")
        tokens = page.wait(lambda: page.js("return document.querySelector('.sequences th:nth-child(4)').ariaSort") == "descending" and [int(r[3].replace(",", "")) for r in rows(page)])
        assert tokens == sorted(tokens, reverse=True)
        kv = page.wait(lambda: (m := daemon.memory()["kv"])["used"] and m)
        page.wait(lambda: abs(size(page.text(".of-kv .big")) - kv["used"] * kv["groups"][0]["block_bytes"]) < 0.25 * kv["used"] * kv["groups"][0]["block_bytes"])
        page.view("throughput")
        page.wait(lambda: float(page.text(".tile .value").replace(",", "")) > 0)
        page.view("memory")
        time.sleep(1)
    page.wait(lambda: not rows(page))
    assert page.js("return window.shift") < 0.02, "nothing moves while figures change"


def test_blocks_by_keys(page, daemon):
    with Load(daemon.url, 2, tokens=400, longest=90):
        page.open(daemon.url)
        page.live()
        page.wait(lambda: len(rows(page)) == 2)
        page.wait(lambda: page.js("return document.querySelector('canvas.blocks')?.height > 20"))
        page.js("document.querySelector('canvas.blocks').focus()")
        seen, marked = set(), 0
        for _ in range(12):
            page.find("canvas.blocks").send_keys("\ue014")  # arrow right: the next run
            seen.add(re.sub(r" ·.*", "", page.text(".card.kv > .reserve")))
            marked += len(page.all(".sequences tr.chosen"))
        page.find("canvas.blocks").send_keys("\ue010")  # the last cell
        seen.add(re.sub(r" ·.*", "", page.text(".card.kv > .reserve")))
        assert any(s.startswith("request ") for s in seen) and seen & {"free", "cached"} and marked, seen


def test_the_last_ten_minutes(page, daemon):
    page.open(daemon.url)
    page.live()
    page.wait(lambda: len(page.js("return document.querySelector('.history path.area').getAttribute('d') || ''")) > 20)
    assert page.js("return document.querySelectorAll('.history .plot').length") == 2
    plot = page.find(".history .plot")
    page.js("arguments[0].focus()", plot)
    plot.send_keys("\ue012")
    page.wait(lambda: re.fullmatch(r"\d\d:\d\d:\d\d", page.text(".history .when")))


def test_the_budget_moves(page, daemon):
    daemon.wait_free()
    page.open(daemon.url)
    page.live()
    page.click(".move summary")
    page.wait(lambda: page.find("#budget-text").is_enabled())
    before = daemon.memory()
    page.fill("#budget-text", "560MiB")
    page.click(".budget-form button")
    page.wait_text(".budget-form .reserve", "560.0 MiB")
    assert daemon.memory()["budget_bytes"] == 560 << 20
    page.wait_text(".ledger header .note", "560.0 MiB")
    page.fill("#budget-text", "nonsense")
    assert page.find("#budget-text").get_attribute("aria-invalid") == "true"
    page.fill("#budget-text", str(before["budget_bytes"]))
    page.click(".budget-form button")
    page.wait(lambda: daemon.memory()["budget_bytes"] == before["budget_bytes"])
