"""The playground: chats and completions that stream, with what each answer took, and as code that runs."""

import json
import re
import subprocess
import sys

import httpx

ARROW_RIGHT, ENTER, ESCAPE = "\ue014", "\ue007", "\ue00c"
CAPTURE = "navigator.clipboard.writeText = async (text) => { window.copied = text; }"


def start(page, daemon, **numbers):
    page.open(daemon.url, "playground")
    page.wait_text("#status", "Serving")
    page.wait(lambda: page.js("return document.querySelector('#play-model').value"))
    for name, value in {"temperature": 0, "max_tokens": 24, **numbers}.items():
        set_number(page, name, value)


def set_number(page, name, value):
    page.fill(f"#play-{name}", str(value))


def ask(page, text):
    page.fill("#draft", text)
    page.find("#draft").send_keys(ENTER)


def answered(page, n=1):
    page.wait(lambda: len(page.texts(".turn.assistant .receipt:not([hidden])")) >= n)
    return page.texts(".turn.assistant > .text")[-1]


def test_a_chat_with_its_receipt(page, daemon):
    start(page, daemon)
    ask(page, "What is the capital of France?")
    text = answered(page)
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 24}
    same = daemon.http.post("/v1/chat/completions", json=body).json()
    assert text == same["choices"][0]["message"]["content"]
    receipt = dict(zip(page.texts(".receipt dt"), page.texts(".receipt dd")))
    assert receipt["Prompt tokens"] == str(same["usage"]["prompt_tokens"]) and receipt["Generated tokens"] == str(same["usage"]["completion_tokens"])
    assert "MiB" in receipt["KV cache at peak"] and receipt["Preempted"] == "0"
    spans = page.js("return [...document.querySelectorAll('.turn .tok')].map(e => [e.textContent, getComputedStyle(e).getPropertyValue('--shade')])")
    assert len(spans) > 3 and all(0 <= float(shade) <= 45 for _, shade in spans)
    answer = page.find(".turn.assistant > .text")
    page.js("arguments[0].focus()", answer)
    answer.send_keys(ARROW_RIGHT)
    assert "%" in page.text(".turn.assistant .hint-of-token")
    ask(page, "And of Italy?")
    answered(page, 2)
    last = dict(zip(page.texts(".turn:last-child .receipt dt"), page.texts(".turn:last-child .receipt dd")))
    assert int(last["From cache"]) > 0, "the first turn is found again"
    page.click("#language")
    said = " ".join(page.texts(".turn:last-child :is(header, .hint-of-token, .receipt)"))
    assert "模型" in said and "块" in said and not re.search("ended|blocks|Darker|first seen|differs", said), said


def test_stop_and_again(page, daemon):
    start(page, daemon, max_tokens=900)
    ask(page, "Count from 1 to 1000, one number a line.")
    page.wait(lambda: len(page.text(".turn.assistant > .text")) > 10)
    page.find("#draft").send_keys(ESCAPE)
    page.wait_text(".turn.assistant header", "stopped")
    daemon.wait_free()
    set_number(page, "max_tokens", 8)
    page.click(".turn.assistant [data-t=regenerate]")
    answered(page)
    assert len(page.all(".turn.assistant")) == 1 and "max_tokens" in page.text(".turn.assistant header")
    page.click(".turn.user [data-t=edit]")
    assert page.find("#draft").get_attribute("value").startswith("Count from 1") and not page.all(".turn")


def test_texts_are_never_html(page, daemon):
    start(page, daemon, max_tokens=4)
    evil = "<img src=x onerror=alert(1)><b>bold</b>"
    ask(page, evil)
    answered(page)
    assert page.text(".turn.user > .text") == evil and not page.all(".turn img, .turn b")
    page.click(".preview summary")
    page.wait_text(".preview pre", evil)
    assert "tokens" in page.text(".preview .note") and not page.all(".preview img")


def test_completions(page, daemon):
    start(page, daemon)
    page.click(".segments input[value=completion]")
    ask(page, "1 2 3 4 5 6")
    text = answered(page)
    assert text == daemon.say("1 2 3 4 5 6", max_tokens=24)
    assert page.texts(".turn > header > span:first-child") == ["Prompt", "Model"]


def test_a_json_schema_holds(page, daemon):
    start(page, daemon, max_tokens=80)
    page.click("[data-t=tools_and_schema]")
    page.click(".field:has(#play-json_schema) + .row [data-t=example]")
    ask(page, "Describe a person as JSON.")
    answer = json.loads(answered(page))
    assert set(answer) == {"name", "age"} and isinstance(answer["age"], int)
    page.fill("#play-json_schema", "{")
    ask(page, "Another one.")
    page.wait_text(".composer .bad", "JSON schema")
    assert page.find("#play-json_schema").get_attribute("aria-invalid") == "true"


def test_a_refusal_is_shown_in_its_own_words(page, daemon):
    """The template of the test model shows no tools."""
    start(page, daemon)
    page.allowed = ("400 (Bad Request)",)
    page.click("[data-t=tools_and_schema]")
    page.click(".field:has(#play-tools) + .row [data-t=example]")
    ask(page, "What is the weather in Paris?")
    page.wait(lambda: page.visible(".turn.assistant .bad"))
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": json.loads(page.find("#play-tools").get_attribute("value")), "max_tokens": 1}
    assert page.text(".turn.assistant .bad") == daemon.http.post("/v1/chat/completions", json=body).json()["error"]["message"]


def test_what_is_copied_runs(page, daemon):
    start(page, daemon, max_tokens=12)
    page.js(CAPTURE)
    question = "It's \"quoted\" & odd: $HOME `ls` \\n?"
    page.fill("#draft", question)
    page.click("[data-t=copy_curl]")
    curl = page.wait(lambda: page.js("return window.copied"))
    out = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=60).stdout
    assert out.endswith("data: [DONE]\n\n")
    page.js("window.copied = ''")
    page.click("[data-t=copy_python]")
    code = page.wait(lambda: page.js("return window.copied"))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 12}
    said = httpx.post(daemon.url + "/v1/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]["content"]
    assert ran.stdout.strip() == said.strip()
