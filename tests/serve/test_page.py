"""The page at ``/`` in Chromium: pictures in, answers and what they cost out, for everybody."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from serve.chromium import Seen, chromium, hand_over, pass_until, sync_api
from serve.server_process import LABEL, QUESTION, SIGN, Served, png, serving

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
expect = sync_api.expect
pytestmark = pytest.mark.xdist_group("page")
_SHOTS = os.environ.get("EDGE_MLLM_SCREENSHOTS")
"""A folder for screenshots of the documentation."""
_STAGES = ["waiting", "picture", "tiling", "tower", "prefill", "decode", "rest"]
Open = Callable[..., sync_api.Page]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sync_api.BrowserContext]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def open_page(context: sync_api.BrowserContext, served: Served) -> Iterator[Open]:
    """Opens the page; at the end nothing must have gone wrong on it, and nobody else been asked."""
    opened: list[Seen] = []

    def opening(*, gated: bool = False) -> sync_api.Page:
        opened.append(Seen(context, served.url, gated=gated))
        expect(opened[-1].page.locator("#model")).to_have_text("Model: starter")
        return opened[-1].page

    yield opening
    for seen in opened:
        seen.page.close()
        assert not [error for error in seen.errors if "status of 400" not in error], seen.errors
        assert seen.hosts <= {served.url.split("/")[2]}, seen.hosts


def label(shade: int) -> bytes:
    """label.png a little darker, so that no cache knows a tile of it."""
    out = io.BytesIO()
    Image.open(LABEL).convert("RGB").point(lambda value: max(0, value - shade)).save(out, "PNG")
    return out.getvalue()


def ask(page: sync_api.Page, question: str, answers: int) -> sync_api.Locator:
    """Ask by the keyboard; the newest turn, once so many answers are there."""
    page.fill("#question", question)
    page.press("#question", "Enter")
    expect(page.locator(".card .legend")).to_have_count(answers)
    return page.locator(".turn").first


def stages(turn: sync_api.Locator) -> list[str]:
    return [re.sub(r" [\d.]+ m?s.*", "", text) for text in turn.locator(".legend li").all_inner_texts()]


def test_a_dropped_picture_is_cut_read_and_kept(open_page):
    page = open_page()
    hand_over(page, LABEL, "drop")
    expect(page.locator("#cut")).to_have_text("640 x 480 pixels: 5 tiles (2 x 2 and one of the whole), 180 tokens")
    assert page.locator("#overlay .tile text").all_text_contents() == ["36 tokens"] * 4
    boxes = page.locator("#overlay .tile rect:not(.ground)").evaluate_all(
        "all => all.map((each) => each.getAttribute('x'))"
    )
    assert boxes == ["0", "320", "0", "320"]
    expect(page.locator("#estimate")).to_contain_text("180 image tokens of")
    first = ask(page, QUESTION, 1)
    expect(first.locator(".text")).to_have_text("Coffee $4.60")
    assert stages(first) == _STAGES
    assert "kept" not in first.inner_text() and "still" not in first.inner_text()
    widths = first.locator(".bar i").evaluate_all("all => all.map((each) => parseFloat(each.style.width))")
    assert sum(widths) == pytest.approx(100, abs=0.5) and widths[_STAGES.index("tower")] > 0
    expect(page.locator("#status")).to_contain_text("Answer: Coffee $4.60.")
    expect(page.locator("#estimate")).to_contain_text("first token after")

    second = ask(page, "What is the price?", 2)
    expect(second.locator(".text")).to_have_text("$4.60")
    expect(second.locator("li.tower")).to_have_text("tower 0 ms (still in the decoder)")
    assert re.search(r"prompt tokens\s+210\s+210, 195 kept", second.inner_text())

    page.select_option("[name=method] >> nth=0", "pool")
    page.select_option("[name=ratio] >> nth=0", "1/4")
    expect(page.locator("#estimate")).to_contain_text("45 image tokens")
    assert page.locator("#overlay .tile text").all_text_contents() == ["9 tokens"] * 4
    expect(ask(page, QUESTION, 3).locator("li.tower")).to_have_text("tower 0 ms (kept in memory)")


def test_two_settings_stand_side_by_side_and_one_may_fail(open_page):
    page = open_page()
    hand_over(page, LABEL, "paste")
    page.check("#compare")
    page.select_option("[name=detail] >> nth=1", "low")
    turn = ask(page, QUESTION, 2)
    assert turn.locator(".setting").all_inner_texts() == ["A: detail auto, not reduced", "B: detail low, not reduced"]
    assert turn.locator("tr:has-text('image tokens')").all_inner_texts() == [
        "image tokens\t180\t180",
        "image tokens\t36\t36",
    ]
    left, right = (turn.locator(".card").nth(place).bounding_box() for place in (0, 1))
    assert left["y"] == right["y"] and left["x"] < right["x"]
    expect(page.locator("#cut")).to_contain_text("1 tile, 36 tokens")
    turn.locator("button").first.click()
    expect(page.locator("#cut")).to_contain_text("5 tiles")
    page.fill("[name=max_image_tokens] >> nth=0", "5")
    expect(page.locator("#estimate")).to_contain_text("max_image_tokens allows 5")
    turn = ask(page, QUESTION, 3)
    expect(turn.locator(".card.failed .note")).to_contain_text("max_image_tokens allows 5")
    expect(page.locator("#error")).to_contain_text("max_image_tokens allows 5")
    expect(turn.locator(".card").nth(1).locator(".text")).to_contain_text("$4.")


def test_earlier_turns_are_sent_on_request(open_page):
    page = open_page()
    sent: list[int] = []
    page.on(
        "request",
        lambda asked: sent.append(len(asked.post_data_json["messages"])) if "chat/completions" in asked.url else None,
    )
    hand_over(page, SIGN, "drop")
    page.check("#follow")
    expect(ask(page, QUESTION, 1).locator(".text")).to_contain_text("TRAM 18")
    ask(page, QUESTION, 2)
    hand_over(page, LABEL, "drop")
    expect(page.locator("#estimate")).to_contain_text("180 image tokens")
    expect(ask(page, QUESTION, 3).locator(".text")).to_have_text("Coffee $4.60")
    assert sent == [1, 3, 1]


def test_an_answer_streams_and_can_be_stopped(open_page):
    page = open_page(gated=True)
    hand_over(page, label(1), "drop")
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    pass_until(page, '"tile":3')
    expect(page.locator("#progress")).to_have_text("tile 3 of 5")
    expect(page.locator("#overlay .tile.done")).to_have_count(3)
    pass_until(page, '"f"')
    expect(page.locator(".text")).to_have_text("Cof")
    expect(page.locator("#ask")).to_have_attribute("aria-disabled", "true")
    page.press("#question", "Escape")
    pass_until(page, "the end")
    expect(page.locator(".note")).to_have_text("Stopped.")
    expect(page.locator("#ask")).to_have_attribute("aria-disabled", "false")
    assert page.locator(".text").inner_text() == "Cof" and page.locator("#error").inner_text() == ""


def test_another_picture_may_come_while_an_answer_is_written(open_page):
    page = open_page(gated=True)
    hand_over(page, LABEL, "drop")
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    pass_until(page, '"f"')
    expect(page.locator(".text")).to_have_text("Cof")
    hand_over(page, png(seed=1, width=300, height=900), "paste")
    expect(page.locator("#remove")).to_be_visible()
    expect(page.locator("#overlay")).to_have_attribute("viewBox", "0 0 300 900")
    pass_until(page, "the end")
    expect(page.locator(".card .legend")).to_have_count(1)
    expect(page.locator(".text")).to_have_text("Coffee $4.60")
    expect(page.locator("#cut")).to_contain_text("300 x 900 pixels")
    expect(page.locator("#overlay")).to_have_attribute("viewBox", "0 0 300 900")
    assert page.locator(".card button").count() == 0


def test_tiles_that_were_seen_before_are_told(open_page):
    page, out = open_page(), io.BytesIO()
    picture = Image.open(LABEL).convert("RGB")
    for place, colour in enumerate(((9, 9, 9), (99, 99, 99))):
        picture.putpixel((600, 400), colour)
        out.seek(0)
        picture.save(out, "BMP")
        hand_over(page, out.getvalue(), "drop", "image/bmp")
        turn = ask(page, QUESTION, place + 1)
    expect(turn.locator("li.tower")).to_contain_text("(3 of 5 tiles seen before)")


def test_the_camera_is_asked_about_again_and_again(open_page):
    page = open_page()
    page.click("#camera")
    expect(page.locator("#live")).to_be_visible()
    page.fill("#question", "What colour is it?")
    page.press("#question", "Enter")
    expect(page.locator(".note")).to_have_text(re.compile(r"[5-9] frames asked, \d+ skipped, [\d.]+ a second"))
    expect(page.locator("#overlay .tile")).to_have_count(4)
    assert page.locator(".text").inner_text() and stages(page.locator(".turn")) == _STAGES
    page.click("#stop")
    expect(page.locator("#stop")).to_be_hidden()
    page.click("#camera")
    assert page.evaluate("document.getElementById('live').srcObject") is None
    expect(page.locator("#live")).to_be_hidden()


def test_without_a_mouse(open_page):
    page = open_page()
    page.on("filechooser", lambda _: None)  # from here on the browser hands choosers over
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files(LABEL)
    expect(page.locator("#overlay .tile")).to_have_count(4)
    passed = []
    while page.evaluate("document.activeElement.id") != "question":
        page.keyboard.press("Tab")
        passed.append(page.evaluate("document.activeElement.id"))
        outlined = "document.activeElement.closest('.button') ?? document.activeElement"
        assert page.evaluate(f"getComputedStyle({outlined}).outlineStyle") == "solid", passed
    assert passed == ["camera", "remove", "show-tiles", "question"]
    page.keyboard.type("What does")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("it say?")
    assert page.input_value("#question") == "What does\nit say?"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Tab")
    page.keyboard.press("l")  # the first control of the settings: detail low
    for _ in range(6):  # reduction, two limits, two boxes
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "ask"
    page.keyboard.press("Enter")
    expect(page.locator(".card .legend")).to_have_count(1)
    expect(page.locator(".setting")).to_have_text("detail low, not reduced")
    assert page.evaluate("document.activeElement.id") == "ask"


@pytest.mark.parametrize(
    ("written", "scale", "expected"),
    [
        ("It is at [64, 48, 320, 240].", "pixels", [["rect", 64, 48, 256, 192, ""]]),
        ('```json\n[{"bbox_2d": [100, 100, 200, 900], "label": "cup"}]', "0 to 1000",
         [["rect", 64, 48, 64, 384, "cup"]]),
        ('{"label": "tip", "point_2d": [0.5, 0.25]}', "0 to 1", [["circle", 320, 120, 0, 0, "tip"]]),
        ("<|box_start|>(500,0),(1000,1000)<|box_end|>", "0 to 1000", [["rect", 320, 0, 320, 480, ""]]),
        ('<point x="50" y="50" alt="mid">mid</point> <loc0512><loc0000><loc1024><loc0512> pen', None,
         [["circle", 320, 240, 0, 0, "mid"], ["rect", 0, 240, 320, 240, "pen"]]),
        ('{"box_2d": [0, 500, 1000, 1000], "label": "right"}', None, [["rect", 320, 0, 320, 480, "right"]]),
        ("It costs 4.60 (or [1] and [2, 3, 4]).", None, []),
    ],
)  # fmt: skip
def test_boxes_and_points_are_drawn(open_page, written, scale, expected):
    page = open_page()
    page.route("**/v1/chat/completions", lambda route: _say(route, written))
    hand_over(page, LABEL, "drop")
    ask(page, "Where is it?", 1)
    drawn = page.locator("#overlay .marks").evaluate(
        """marks => [...marks.querySelectorAll('rect, circle')].map((mark) => [mark.tagName,
        ...[['x', 'cx'], ['y', 'cy'], ['width'], ['height']].map(
            (names) => Number(names.map((name) => mark.getAttribute(name)).find((value) => value !== null) ?? 0)),
        mark.nextSibling?.tagName === 'text' ? mark.nextSibling.textContent : ''])"""
    )
    assert drawn == expected
    expect(page.locator("#found")).to_be_visible(visible=bool(expected))
    if scale:
        expect(page.locator("#found-words")).to_have_text(f"1 mark in the answer, read as {scale}")
        page.select_option("#scale", "hidden")
        expect(page.locator("#overlay .marks > *")).to_have_count(0)


def _say(route: sync_api.Route, text: str) -> None:
    """Let the server answer, with other words."""
    response = route.fetch()
    events = [json.loads(line[6:]) for line in response.text().split("\n") if line.startswith("data: {")]
    said = next(event for event in events if event["choices"] and event["choices"][0]["delta"].get("content"))
    kept = [event for event in events if not event["choices"] or not event["choices"][0]["delta"].get("content")]
    kept.insert(1, said | {"choices": [said["choices"][0] | {"delta": {"content": text}}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in kept) + "data: [DONE]\n\n"
    route.fulfill(response=response, body=body)


def test_a_turned_picture_is_drawn_over_as_it_is_seen(open_page):
    page, out = open_page(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.open(LABEL).convert("RGB").save(out, "JPEG", exif=exif)
    hand_over(page, out.getvalue(), "drop", "image/jpeg")
    expect(page.locator("#cut")).to_contain_text("480 x 640 pixels")
    expect(page.locator("#overlay")).to_have_attribute("viewBox", "0 0 480 640")
    assert page.evaluate("(({naturalWidth: w, naturalHeight: h}) => [w, h])(document.getElementById('preview'))") == [
        480,
        640,
    ]


def test_what_a_browser_cannot_show_can_be_asked_about_and_what_is_no_picture_is_refused(open_page):
    page, out = open_page(), io.BytesIO()
    Image.open(LABEL).convert("RGB").save(out, "TIFF")
    hand_over(page, out.getvalue(), "drop", "image/tiff")
    expect(page.locator("#empty")).to_contain_text("cannot show picture; it can be asked about")
    expect(ask(page, QUESTION, 1).locator(".text")).to_have_text("Coffee $4.60")
    page.click("#remove")
    expect(page.locator("#empty")).to_have_text("Drop or paste a picture here, or choose one.")
    hand_over(page, b"<svg xmlns='http://www.w3.org/2000/svg'/>", "paste", "image/svg+xml")
    expect(page.locator("#estimate.wrong")).to_contain_text("is not a picture in a format that can be read")


def test_a_key_is_asked_for_and_kept_for_the_tab(context, tmp_path):
    with serving(env={"EDGE_MLLM_API_KEY": "open-sesame"}) as guarded:
        page = Seen(context, guarded.url).page
        expect(page.locator("#key")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("an API key is needed")
        page.fill("#key", "open-sesame")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_have_text("Model: starter")
        expect(page.locator("#key-form")).to_be_hidden()
        page.reload()
        hand_over(page, LABEL, "drop")
        expect(ask(page, QUESTION, 1).locator(".text")).to_have_text("Coffee $4.60")
        guarded.process.terminate()
        guarded.process.wait(10)
        page.press("#question", "Enter")
        expect(page.locator("#error")).to_contain_text("The server cannot be reached")
        page.close()


@pytest.mark.parametrize(
    ("name", "width", "height", "scheme"), [("phone", 390, 844, "dark"), ("desktop", 1180, 1060, "light")]
)
def test_every_state_is_for_everybody(open_page, name, width, height, scheme):
    page = open_page(gated=True)
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme=scheme)
    page.reload()

    def look(state: str) -> None:
        found = axe.Axe().run(page).response["violations"]
        assert not [(each["id"], each["nodes"]) for each in found if each["impact"] in ("serious", "critical")]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if _SHOTS:
            page.screenshot(path=Path(_SHOTS) / f"page-{name}-{state}.png", full_page=name == "phone")

    look("empty")
    hand_over(page, label(width % 7 + 2), "drop")
    expect(page.locator("#overlay .tile")).to_have_count(4)
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    pass_until(page, '"f"')
    expect(page.locator(".text")).to_have_text("Cof")
    look("streaming")
    pass_until(page, "the end")
    expect(page.locator(".card .legend")).to_have_count(1)
    page.wait_for_timeout(600)  # until bar and estimate stand
    look("finished")
    page.evaluate("document.getElementById('settings').open = true")
    page.fill("[name=max_image_tokens] >> nth=0", "5")
    page.press("#question", "Enter")
    expect(page.locator("#error")).to_contain_text("max_image_tokens allows 5")
    expect(page.locator("#estimate")).to_contain_text("This cannot be asked")
    look("error")
