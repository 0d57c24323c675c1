"""A Space as Hugging Face runs it: `python app.py` without this package, asked by a client and used in a browser.

The browser is a Chromium of the system, driven by playwright: `pip install "hf-matryoshka[browser]"`, and a
`chromium-headless-shell`, `chromium` or `google-chrome` on the PATH (on Debian and Ubuntu `apt-get install chromium`).
"""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from hf_matryoshka import export_level
from hf_matryoshka.cli.environment import find_chromium
from hf_matryoshka.hub.space import build_space


pytest.importorskip("gradio", reason="the page of a Space needs gradio: pip install 'hf-matryoshka[space]'")

TEXTS = [f"the {a} of the {b}" for a in ("cat", "dog", "bird", "fish") for b in ("river", "city", "cell", "gene")]
CHROMIUM = find_chromium()
NO_BROWSER = CHROMIUM is None or importlib.util.find_spec("playwright") is None
# As in the process of a user: nothing of this package can be imported.
START = "import sys, runpy; sys.modules['hf_matryoshka'] = None; runpy.run_path('app.py', run_name='__main__')"


@pytest.fixture(scope="module")
def page(tmp_path_factory, make_adaptor, base):
    """Address of a running Space with the levels d4, d8 and d32 of an adaptor."""
    folder = tmp_path_factory.mktemp("space")
    (folder / "corpus.txt").write_text("\n".join(TEXTS))
    export_level(make_adaptor(), "full", folder / "full", base_model=base)
    made = build_space(folder / "full", folder / "space", folder / "corpus.txt", trust_remote_code=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "tmp")}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", START], cwd=made.folder, env={**kept, **own}, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            assert process.poll() is None, (folder / "log").read_text()[-4000:]
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def _answers(address):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(address, timeout=60).status == 200
    except OSError:
        return False


def test_it_answers_without_this_package(page):
    from gradio_client import Client

    client = Client(page, verbose=False)
    small, large = (client.predict("the cat of the city", level, 2, api_name="/search") for level in (0, 2))
    assert small[0]["label"] == "Level: d4" and large[0]["label"] == "Level: d32"
    texts = [[row[2] for row in answer[-2]["data"]] for answer in (small, large)]
    assert all(len(found) == 10 and set(found) <= set(TEXTS) for found in texts) and texts[0] != texts[1]
    assert "| bytes a vector | 16 | 128 |" in small[-1] and "| bytes a vector | 128 | 128 |" in large[-1]


@pytest.mark.skipif(NO_BROWSER, reason="no Chromium or no playwright, see the first lines of this file")
def test_a_slider_moves_results_and_bytes_in_a_browser(page):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(120_000)
        errors = []
        tab.on("pageerror", lambda error: errors.append(error))
        tab.goto(page)
        tab.locator("#query textarea, #query input").fill("the fish of the gene")
        costs, results = tab.locator("#costs"), tab.locator("#results")
        expect(costs).to_contain_text(re.compile(r"encoding the query\s+[\d.]+ ms"), timeout=60_000)
        expect(costs).to_contain_text(re.compile(r"bytes a vector\s+128\s+128"))
        expect(results).to_contain_text(" of the ")
        before = results.inner_text()
        slider = tab.locator("#level input[type=range]")
        slider.focus()
        slider.press("Home")
        expect(costs).to_contain_text(re.compile(r"bytes a vector\s+16\s+128"), timeout=60_000)
        expect(costs).to_contain_text(re.compile(r"index of 16 vectors\s+256 B\s+2.0 KB"))
        expect(tab.locator("#level")).to_contain_text("Level: d4")
        assert results.inner_text() != before and not errors
        browser.close()
