"""The app's page in Chromium at a phone's size, with the library behind it: a picture in, answer and costs out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from android.browser import Browser
from android.conftest import ROOT

from edge_mllm.measure.bench.result import read_result

_PICTURE = ROOT / "starter" / "demo" / "label.png"
_SHOTS = os.environ.get("EDGE_MLLM_SCREENSHOTS")
"""A folder for screenshots of the documentation."""


@pytest.fixture
def address(core_script: Path) -> Iterator[str]:
    if shutil.which("chromedriver") is None or shutil.which("chromium") is None:
        pytest.skip("chromium and chromedriver are not installed")
    process = subprocess.Popen([core_script, "page", "--threads", "1"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    yield process.stderr.readline().strip()
    process.terminate()
    process.wait(10)
    process.stderr.close()


@pytest.fixture(params=["light", "dark"])
def browser(request: pytest.FixtureRequest, address: str) -> Iterator[Browser]:
    found = Browser(dark=request.param == "dark")
    found.open(address)
    yield found
    if _SHOTS:
        found.screenshot(Path(_SHOTS) / f"android-{request.param}.png")
    found.close()


def test_a_picture_goes_in_and_the_answer_comes_out(browser: Browser, tmp_path: Path) -> None:
    browser.wait("document.getElementById('model').textContent.startsWith('starter')")
    browser.type("#pick", str(_PICTURE))
    browser.wait("document.getElementById('plan').textContent === '640 x 480 pixels: 5 tiles, 180 tokens'")
    assert browser.run("return document.querySelectorAll('#grid i').length") == 4
    browser.type("#prompt", "What does it say?")
    browser.click("#ask")
    browser.wait("document.querySelector('#talk .answered').textContent === ' Coffee $4.60'")
    browser.wait("document.getElementById('costs').hidden === false")
    speed = browser.run("return document.getElementById('speed').textContent")
    assert all(word in speed for word in ("First token after", "tokens/s", "peak memory", "loaded in"))
    stages = browser.run("return document.getElementById('bars').getAttribute('aria-label')")
    assert [stage.split()[0] for stage in stages.split(", ")] == ["preprocess", "vision", "prefill", "decode"]
    assert browser.run("return document.querySelectorAll('#grid i.done').length") == 4
    # A second question goes on with the conversation, without the tower.
    browser.type("#prompt", "What is the price?")
    browser.click("#ask")
    browser.wait("document.querySelectorAll('#talk .answered').length === 2")
    browser.wait("document.getElementById('ask').disabled === false")
    assert browser.run("return result.timings.vision_s") == 0
    assert browser.run("return result.images[0].source") == "kv"
    # A measurement is a result of edge-mllm bench.
    browser.click("#measure")
    browser.wait("document.getElementById('copy-bench').hidden === false")
    assert "medians of 3: first token after" in browser.run("return document.getElementById('measured').textContent")
    file = tmp_path / "phone.json"
    file.write_text(json.dumps(browser.run("return bench")), "utf-8")
    assert len(read_result(file).runs[0].samples) == 3
    names = browser.run(
        "return [...document.querySelectorAll('button:not([hidden]), input, select')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label'))).length"
    )
    assert names == 0, "every control has a name that a screen reader reads"
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_detail_and_errors_are_shown(address: str) -> None:
    browser = Browser()
    try:
        browser.open(address)
        browser.wait("document.getElementById('model').textContent.startsWith('starter')")
        browser.type("#pick", str(_PICTURE))
        browser.wait("document.getElementById('plan').textContent.includes('5 tiles')")
        browser.run(
            "const d = document.getElementById('detail'); d.value = 'low'; d.dispatchEvent(new Event('change'))"
        )
        browser.wait("document.getElementById('plan').textContent.includes('1 tiles, 36 tokens')")
        browser.type("#budget", "5")
        browser.type("#prompt", "What does it say?")
        browser.click("#ask")
        browser.wait("document.getElementById('error').textContent.includes('max_image_tokens allows 5')")
        assert browser.run("return document.getElementById('ask').disabled") is False
    finally:
        browser.close()
