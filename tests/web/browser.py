"""Debian's Chromium without a screen, driven by its own chromedriver: opened, read, its errors and requests collected."""

import base64
import json
import shutil
import time
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

HERE = Path(__file__).resolve().parent
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
VIEWS = ("memory", "throughput", "playground", "planner")
# Without a sandbox because containers and root have none; without what Chromium does over the network by itself.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run", "--no-default-browser-check", "--hide-scrollbars", "--force-color-profile=srgb", "--mute-audio")


def why_not():
    """None, or what is missing."""
    missing = [name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if not path]
    return f"{' and '.join(missing)} not installed (tools/setup.sh --tests)" if missing else None


class Browser:
    def __init__(self, language="en"):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--lang={language}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(60)
        self.cdp("Network.enable")

    def cdp(self, name, **parameters):
        return self.driver.execute_cdp_cmd(name, parameters)

    def js(self, text, *args):
        return self.driver.execute_script(text, *args)

    def size(self, width, height, scale=1):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 500)

    def dark(self, on):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if on else "light"}])

    def open(self, url, view="memory"):
        """A page that knows nothing of the visits before it."""
        self.driver.get("about:blank")
        self.cdp("Storage.clearDataForOrigin", origin=url, storageTypes="all")
        self.driver.get(f"{url}/#{view}")
        if self.js("return sessionStorage.length + localStorage.length"):
            self.js("sessionStorage.clear(); localStorage.clear()")
            self.driver.refresh()

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css):
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", css)

    def texts(self, css):
        return self.js("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", css)

    def visible(self, css):
        return self.js("return Boolean(document.querySelector(arguments[0])?.checkVisibility())", css)

    def click(self, css):
        element = self.find(css)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def view(self, name):
        self.click(f"#tab-{name}")

    def fill(self, css, text):
        """As if typed, whatever was there before."""
        self.js("""const e = document.querySelector(arguments[0]); e.focus(); e.value = arguments[1];
                   e.dispatchEvent(new Event('input', {bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true}))""", css, text)

    def wait(self, right, seconds=60, what=""):
        """The first true value of right()."""
        end = time.monotonic() + seconds
        while True:
            try:
                if value := right():
                    return value
            except StaleElementReferenceException:
                pass
            assert time.monotonic() < end, what or self.text("main")[:3000]
            time.sleep(0.05)

    def wait_text(self, css, part, seconds=60):
        return self.wait(lambda: part in self.text(css), seconds, f"{css}: no {part!r} in {self.text(css)[:500]!r}")

    def live(self):
        self.wait_text("#status", "Serving")
        self.wait(lambda: self.text(".of-kv .big") and self.js("return !document.querySelector('.unseen')"))

    def errors(self):
        """What the console has had since the last call."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        """URLs that were asked for since the last call."""
        events = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def audit(self):
        """What audit.js finds wrong in the page as it is, and what the browser gives assistive technology without a name."""
        found = self.js((HERE / "audit.js").read_text() + "\nreturn audit();")
        named = {"button", "textbox", "searchbox", "combobox", "tab", "link", "checkbox", "radio", "slider", "spinbutton", "image", "img", "table", "region",
                 "dialog", "tabpanel", "tablist", "radiogroup", "figure", "group", "listbox", "form"} - {"figure", "group"}
        for node in self.cdp("Accessibility.getFullAXTree")["nodes"]:
            role = node.get("role", {}).get("value")
            if not node.get("ignored") and role in named and not node.get("name", {}).get("value"):
                found.append(f"{role} without a name: {json.dumps(node.get('properties'))[:200]}")
        return found

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.cdp("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.driver.quit()
