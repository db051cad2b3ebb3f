"""The service's page as people use it: Chromium without a window, the real server and the embedded model.

What only depends on how the server answers (busy, asking for a token, odd captions) is tested with answers made up here.
"""

import base64
import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, Response, Route, expect

from showtell.runtime.explain import heat
from showtell.text import as_sentence

pytestmark = pytest.mark.browser
PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
PATIENCE = 60_000  # milliseconds; a slow machine loads the model in a few seconds
BROKEN = b"\xff\xd8\xff but no more"

Answer = Callable[[Route], None]

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a service that runs as people start it."""
    command = [sys.executable, "-m", "showtell", "serve", "--port", "0", "--threads", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "SHOWTELL_TOKEN"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()  # where it listens, or why it does not
            assert said.startswith("showtell: http://"), said + process.stderr.read()
            yield said.removeprefix("showtell: ").strip()
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def open_page(browser: Browser, server: str) -> Iterator[Callable[..., Page]]:
    """Opens the page; `answer` stands in for the service's captions. At the end nothing may have come from elsewhere."""
    contexts = []
    complaints: list[str] = []

    def open_(answer: Answer | None = None, **options: Any) -> Page:
        context = browser.new_context(**{"color_scheme": "light", "reduced_motion": "reduce", **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("request", lambda request: None if _is_local(request.url, server) else complaints.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if "Security" in message.text else None)
        if answer is not None:
            page.route("**/v1/captions*", answer)
        page.goto(server)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert complaints == []


def _is_local(url: str, server: str) -> bool:
    return url.startswith((f"{server}/", "blob:", "data:"))


def add(page: Page, *photos: tuple[str, bytes] | Path) -> None:
    """Chooses photos, given as files or as names and contents."""
    page.set_input_files(
        "#files",
        [
            {"name": photo.name, "mimeType": "", "buffer": photo.read_bytes()}
            if isinstance(photo, Path)
            else {"name": photo[0], "mimeType": "", "buffer": photo[1]}
            for photo in photos
        ],
    )


def finished(page: Page, count: int) -> None:
    expect(page.locator("#count")).to_have_text(f"{count} of {count} done")


def record(text: str = "a dog runs", largest: int = 0, side: int = 7, **changes: Any) -> dict[str, Any]:
    """A record as the service gives it; every word's attention is largest in field `largest` of a grid of `side` by `side`."""
    attention = np.where(np.arange(side**2) == largest, 0.52, 0.01).reshape(side, side).tolist()
    tokens = text.split()
    pieces = [token if place == 0 or token == "'s" else f" {token}" for place, token in enumerate(tokens)]
    text = "".join(pieces)
    captions = [{"text": text, "score": -0.5}, {"text": "a second one", "score": -1.0}]
    return {
        "path": "x",
        "status": "ok",
        "caption": text,
        "score": -0.5,
        "captions": captions,
        "width": 40,
        "height": 30,
        "model": "made up",
        "tokens": tokens,
        "pieces": pieces,
        "attention": [attention] * len(tokens),
        **changes,
    }


def answer_with(*records: dict[str, Any]) -> Answer:
    """Answers with the records, one after the other, the last one over and over."""
    left = list(records)

    def answer(route: Route) -> None:
        found = left.pop(0) if len(left) > 1 else left[0]
        route.fulfill(json={"results": [found], "model": "made up"})

    return answer


def picture(format_: str = "PNG", size: tuple[int, int] = (400, 300)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, (200, 200, 200)).save(data, format_)
    return data.getvalue()


def pixels(page: Page, card: int = 0) -> np.ndarray[Any, Any]:
    """What is drawn over a photo: (height, width, 4)."""
    data = page.locator(".card canvas").nth(card).evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGBA"), np.int64)


def covers(page: Page) -> bool:
    """Whether the first card's canvas lies exactly over its photo."""
    canvas, image = (page.locator(f".card {part}").first.bounding_box() for part in ("canvas", "img"))
    return bool(canvas == pytest.approx(image, abs=0.1))


def test_two_photos_are_captioned_and_a_broken_one_says_why(open_page: Callable[..., Page]) -> None:
    page = open_page()
    answers: list[Response] = []
    page.on("response", lambda response: answers.append(response) if "/v1/captions" in response.url else None)
    photos = [PHOTOS / "giraffes.jpg", PHOTOS / "kitchen.jpg"]
    add(page, *photos, ("broken.jpg", BROKEN))
    finished(page, 3)
    while sum(response.ok for response in answers) < 2:  # a busy machine tells of answers late
        page.wait_for_timeout(50)
    found = {answer["path"]: answer for response in answers if response.ok for answer in response.json()["results"]}
    assert found["giraffes.jpg"]["caption"] != found["kitchen.jpg"]["caption"]
    for card, photo in enumerate(photos):
        expected = found[photo.name]
        shown = page.locator(".card").nth(card)
        expect(shown.locator(".name")).to_have_text(photo.name)
        expect(shown.locator(".words")).to_have_text(as_sentence(expected["caption"]))
        expect(shown.locator(".choices label")).to_have_text([as_sentence(c["text"]) for c in expected["captions"]])
        expect(shown.locator(".choices input").first).to_be_checked()
        for place, caption in enumerate(
            expected["captions"]
        ):  # one percentage, of the chosen one: no list that is out of order
            shown.locator(".choices label").nth(place).click()
            expect(shown.locator(".likelihood")).to_contain_text(
                f"Confidence {math.floor(100 * caption['confidence'] + 0.5)}%: "
            )
        shown.locator(".choices label").first.click()
    expect(page.locator(".card[data-state=failed] .state")).to_contain_text("cut short")
    expect(page.locator(".card[data-state=failed] .again")).to_be_hidden()  # it would fail again

    # A word shows where the model looked: drawn over exactly the photo, each word its own.
    words = page.locator(".card").first.locator(".word")
    assert not pixels(page).any()
    words.nth(1).hover()
    first = pixels(page)
    words.last.hover()
    second = pixels(page)
    assert first[..., 3].max() > 100
    assert np.abs(first - second).max() > 20
    assert covers(page)
    page.mouse.move(0, 0)
    assert not pixels(page).any()

    with page.expect_download() as download:
        page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8-sig"))))
    assert [row["path"] for row in rows] == ["giraffes.jpg", "kitchen.jpg", "broken.jpg"]
    assert [row["status"] for row in rows] == ["ok", "ok", "error"]
    assert rows[0]["caption"] == words.first.locator("..").inner_text()
    assert float(rows[0]["score"]) < 0
    assert (rows[2]["caption"], rows[2]["error_code"]) == ("", "truncated")
    with page.expect_download() as download:
        page.click("#jsonl")
    records = [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]
    assert [found["path"] for found in records] == ["giraffes.jpg", "kitchen.jpg", "broken.jpg"]
    assert len(records[0]["captions"]) == 3
    assert records[2]["error"]["code"] == "truncated"


@pytest.mark.parametrize("fields", [7, 8])
def test_colours_lie_where_the_weight_is(open_page: Callable[..., Page], fields: int) -> None:
    found = record(largest=fields - 1, side=fields)  # the grid's upper right field
    page = open_page(answer_with(found))
    add(page, ("wide.png", picture(size=(800, 200))))
    finished(page, 1)
    page.locator(".word").first.hover()
    drawn = pixels(page)
    opacity = drawn[..., 3]
    side = len(opacity)
    field = side // fields
    assert opacity[field // 2, -field // 2] < 60
    assert opacity[0, -1] < 60  # up to the very corner
    assert opacity[side // 2, side // 2] > 180
    assert opacity[-field // 2, -field // 2] > 180
    # The same colours as in `showtell explain`: over black, each is as bright as it is opaque.
    printed = np.asarray(heat(Image.new("RGB", (side, side)), np.array(found["attention"][0])))
    assert np.abs(drawn[..., :3] * opacity[..., None] / 255 - printed).max() < 4
    expect(page.locator(".word").first).to_have_attribute("aria-description", "looked most at the top right")
    assert covers(page)


def test_maps_of_a_model_that_crops_cover_the_part_that_it_sees(open_page: Callable[..., Page]) -> None:
    page = open_page(answer_with(record(width=800, height=200)))
    model = {"preprocessing": {"resize": "crop", "crop": 0.8}}
    page.route("**/v1/model", lambda route: route.fulfill(json=model))
    add(page, ("wide.png", picture(size=(800, 200))))
    finished(page, 1)
    expect(page.locator("canvas")).to_have_attribute("style", re.compile("left: 40%"))
    frame, canvas = (page.locator(part).bounding_box() for part in (".frame img", "canvas"))
    assert frame
    assert canvas
    assert canvas["x"] - frame["x"] == pytest.approx(0.4 * frame["width"], abs=1)
    assert canvas["y"] - frame["y"] == pytest.approx(0.1 * frame["height"], abs=1)
    assert canvas["width"] == pytest.approx(0.2 * frame["width"], abs=1)
    assert canvas["height"] == pytest.approx(0.8 * frame["height"], abs=1)


def test_captions_are_chosen_edited_and_copied(open_page: Callable[..., Page]) -> None:
    page = open_page(answer_with(record('a dog \'s <b> & "ball"')), permissions=["clipboard-read", "clipboard-write"])
    add(page, ("a & b.png", picture()))
    finished(page, 1)

    def copied(button: str) -> str:
        page.locator(button).evaluate("button => (button.textContent = button.dataset.label ?? button.textContent)")
        page.click(button)
        expect(page.locator(button)).to_have_text("Copied")
        return str(page.evaluate("navigator.clipboard.readText()"))

    expect(page.locator(".words")).to_have_text('A dog\'s <b> & "ball".')  # a piece is put back on its word
    assert copied(".copy-text") == 'A dog\'s <b> & "ball".'
    html = copied(".copy-html")
    assert html == '<img src="a%20%26%20b.png" alt="A dog&#39;s &#60;b&#62; &#38; &#34;ball&#34;.">'
    page.locator(".choices label").nth(1).click()
    assert copied(".copy-text") == "A second one."
    page.click(".change")
    expect(page.locator(".edit")).to_be_focused()
    page.fill(".edit", "Our dog, Ada.")
    page.click(".change")
    expect(page.locator(".words")).to_have_text("Our dog, Ada.")
    expect(page.locator(".choices input:checked")).to_have_count(0)
    expect(page.locator(".likelihood")).to_have_text("")
    assert copied(".copy-text") == "Our dog, Ada."
    with page.expect_download() as download:
        page.click("#jsonl")
    [found] = [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]
    assert found["caption"] == "Our dog, Ada."
    assert "score" not in found  # nobody scored what was written here


def test_doubt_is_said_in_words(open_page: Callable[..., Page]) -> None:
    """By a sign and a word, not by colour alone; a model without confidence shows the likelihood of the words."""

    def sure(confidence: float, **changes: Any) -> dict[str, Any]:
        captions = [{"text": "a dog", "score": -0.5, "confidence": confidence}]
        return record("a dog", captions=captions, confidence=confidence, **changes)

    answers = (
        sure(0.12, in_domain=0.2, source="model"),
        sure(0.4, in_domain=0.9, source="model"),
        sure(0.97, in_domain=0.9, source="labels"),
        record("a dog"),
    )
    page = open_page(answer_with(*answers))
    for number in range(len(answers)):
        add(page, (f"{number}.png", picture()))
        finished(page, number + 1)
    texts = ["? Confidence 12%: doubtful", "~ Confidence 40%: uncertain", "✓ Confidence 97%: probably good"]
    expect(page.locator(".likelihood")).to_have_text([*texts, "Likelihood of the words: 61%"])
    for place, (named, unusual) in enumerate([(False, True), (False, False), (True, False), (False, False)]):
        expect(page.locator(".named").nth(place)).to_be_visible(visible=named)
        expect(page.locator(".unusual").nth(place)).to_be_visible(visible=unusual)


def test_a_photo_without_a_caption_says_so(open_page: Callable[..., Page]) -> None:
    doubtful = {"path": "x", "status": "doubtful", "confidence": 0.1, "in_domain": 0.2, "width": 4, "height": 3, "model": "m"}
    page = open_page(answer_with(doubtful))
    add(page, ("one.png", picture()))
    finished(page, 1)
    expect(page.locator(".state")).to_contain_text("doubtful")


def test_a_caption_that_was_cut_is_shown_as_cut(open_page: Callable[..., Page]) -> None:
    cut = record("a dog runs over")
    cut["captions"][0]["cut"] = True
    whole = record("a sign from the u.s.", captions=[{"text": "a sign from the u.s.", "score": -0.5}])
    page = open_page(answer_with(cut, whole))
    add(page, ("one.png", picture()))
    finished(page, 1)
    add(page, ("two.png", picture()))
    finished(page, 2)
    expect(page.locator(".words")).to_have_text(["A dog runs over …", "A sign from the u.s."])
    expect(page.locator(".cut").first).to_be_visible()
    expect(page.locator(".cut").last).to_be_hidden()
    page.locator(".choices label").nth(1).click()
    expect(page.locator(".words").first).to_have_text("A second one.")
    expect(page.locator(".cut").first).to_be_hidden()


def test_a_table_holds_no_formulas(open_page: Callable[..., Page]) -> None:
    page = open_page(answer_with(record('a "big", dog')))
    add(page, ("=cmd|' .png", picture()), ("@x,y.png", picture()), ("plain.png", picture()))
    finished(page, 3)
    with page.expect_download() as download:
        page.click("#csv")
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8-sig"), newline="")))
    assert [row["path"] for row in rows] == ["'=cmd|' .png", "'@x,y.png", "plain.png"]
    assert {row["caption"] for row in rows} == {'A "big", dog.'}
    assert {row["score"] for row in rows} == {"-0.5"}  # a number stays one


def test_photos_are_dropped_and_pasted(open_page: Callable[..., Page]) -> None:
    page = open_page(answer_with(record()))
    for event, field in (("DragEvent('drop'", "dataTransfer"), ("ClipboardEvent('paste'", "clipboardData")):
        page.evaluate(
            "() => {const files = new DataTransfer(); files.items.add(new File(['x'], 'photo.tif'));"
            f"document.body.dispatchEvent(new {event}, {{{field}: files, bubbles: true, cancelable: true}}))}}"
        )
    finished(page, 2)
    expect(page.locator(".unseen").first).to_be_visible()  # no browser draws this, and the caption is there all the same
    expect(page.locator(".words").first).to_have_text("A dog runs.")


def test_keyboard_alone(open_page: Callable[..., Page]) -> None:
    page = open_page(answer_with(record("a dog runs", 0), record("two men", 48)))
    add(page, ("one.png", picture()), ("two.png", picture()))
    finished(page, 2)
    expect(page.locator("#status")).to_contain_text(".png: ")
    page.locator("#clear").focus()
    page.keyboard.press("Tab")
    expect(page.locator(".remove").first).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".card").first.locator(".word").first).to_be_focused()
    assert pixels(page).any()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".word.shown")).to_have_text("dog")
    page.keyboard.press("Enter")  # keeps it
    page.keyboard.press("End")
    expect(page.locator(".word.shown")).to_have_text("runs")
    page.keyboard.press("Tab")  # the words are one stop
    expect(page.locator(".card").first.locator(".choices input").first).to_be_focused()
    expect(page.locator(".word.shown")).to_have_text("dog")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".words").first).to_have_text("A second one.")
    page.locator(".remove").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".card .name")).to_have_text(["two.png"])
    expect(page.locator(".remove")).to_be_focused()  # the next photo's
    page.keyboard.press("Enter")
    expect(page.locator("#choose")).to_be_focused()
    expect(page.locator("#results")).to_be_hidden()


def test_phone(open_page: Callable[..., Page]) -> None:
    page = open_page(answer_with(record()), viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    expect(page.locator("#camera")).to_be_visible()
    assert page.locator("#shot").get_attribute("capture") == "environment"
    add(page, ("a" * 80 + ".png", picture(size=(3000, 1000))), ("photo.tif", picture("TIFF")))
    finished(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") == 360  # nothing sticks out
    word = page.locator(".word").nth(1)
    word.tap()
    expect(word).to_have_attribute("aria-pressed", "true")
    assert pixels(page).any()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Callable[..., Page], scheme: Any) -> None:
    def answer(route: Route) -> None:
        if b"locked.png" in (route.request.post_data_buffer or b""):
            route.fulfill(status=401, json={"error": {"code": "unauthorized", "message": "a token is needed"}})
        elif b"broken.jpg" in (route.request.post_data_buffer or b""):
            route.fulfill(status=422, json={"error": {"code": "truncated", "message": "broken.jpg: cut short"}})
        elif b"slow.png" not in (route.request.post_data_buffer or b""):
            route.fulfill(json={"results": [record()], "model": "made up"})

    page = open_page(answer, color_scheme=scheme)
    names = ("good.png", "changed.png", "broken.jpg", "locked.png", "slow.png")  # one in each state that a photo can be in
    add(page, *((name, picture()) for name in names))
    expect(page.locator(".card[data-state=waiting]")).to_have_count(1)
    expect(page.locator("#login")).to_be_visible()
    for summary in page.locator("summary").all():
        summary.click()
    page.locator(".change").nth(1).click()
    page.locator(".word").first.hover()
    violations = Axe().run(page).response["violations"]
    assert [f"{rule['id']} ({rule['impact']}): {node['html']}" for rule in violations for node in rule["nodes"]] == []


def test_the_theme_can_be_turned(open_page: Callable[..., Page]) -> None:
    page = open_page()
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    expect(page.locator("#theme")).to_have_attribute("aria-pressed", "true")
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    assert page.evaluate(ground) == dark  # it is remembered


def test_a_busy_server_is_waited_for_and_not_crowded(open_page: Callable[..., Page]) -> None:
    on_their_way: list[Route] = []
    page = open_page(lambda route: on_their_way.append(route))  # playwright takes no builtin
    add(page, *((f"{number}.png", picture()) for number in range(5)))
    expect(page.locator(".state", has_text="Captioning")).to_have_count(3)
    expect(page.locator(".state", has_text="Waiting for its turn")).to_have_count(2)
    page.wait_for_timeout(100)  # also lets the routes be heard
    assert len(on_their_way) == 3
    on_their_way.pop(0).fulfill(status=503, headers={"Retry-After": "1"}, json={"error": {"code": "busy", "message": ""}})
    expect(page.locator(".state", has_text="The server is busy. Trying again in 1 s")).to_have_count(1)
    page.locator(".remove").nth(2).click()  # calls its request back, and gives its turn to the next
    expect(page.locator(".card")).to_have_count(4)
    answered = 0
    while answered < 4:
        page.wait_for_timeout(50)
        while on_their_way:
            route = on_their_way.pop()
            if "2.png" not in (route.request.post_data_buffer or b"").decode("latin-1"):
                route.fulfill(json={"results": [record()], "model": "made up"})
                answered += 1
    finished(page, 4)
    expect(page.locator(".words")).to_have_text(["A dog runs."] * 4)


def test_a_model_without_attention_captions_all_the_same(open_page: Callable[..., Page]) -> None:
    plain = {key: value for key, value in record().items() if key not in ("tokens", "pieces", "attention")}

    def answer(route: Route) -> None:
        if "attention=true" in route.request.url:
            route.fulfill(status=422, json={"error": {"code": "invalid-option", "message": "this model does not attend"}})
        else:
            route.fulfill(json={"results": [plain], "model": "made up"})

    page = open_page(answer)
    add(page, *((f"{number}.png", picture()) for number in range(4)))
    expect(page.locator(".words")).to_have_text(["A dog runs."] * 4)
    expect(page.locator(".word")).to_have_count(0)


def test_a_token_is_asked_for_once_and_sent(open_page: Callable[..., Page]) -> None:
    def answer(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer open sesame":
            route.fulfill(json={"results": [record()], "model": "made up"})
        else:
            route.fulfill(status=401, json={"error": {"code": "unauthorized", "message": "give the token"}})

    page = open_page(answer)
    expect(page.locator("#login")).to_be_hidden()
    add(page, ("one.png", picture()), ("two.png", picture()))
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token")).to_be_focused()
    page.fill("#token", "open sesame")
    page.keyboard.press("Enter")
    expect(page.locator(".words")).to_have_text(["A dog runs."] * 2)
    expect(page.locator("#login")).to_be_hidden()


def test_a_server_that_is_gone_can_be_tried_again(open_page: Callable[..., Page]) -> None:
    gone = [True]

    def answer(route: Route) -> None:
        if gone:
            gone.pop()
            route.abort("connectionrefused")
        else:
            route.fulfill(json={"results": [record()], "model": "made up"})

    page = open_page(answer)
    add(page, ("one.png", picture()))
    expect(page.locator(".state")).to_have_text("The server cannot be reached.")
    page.click(".again")
    expect(page.locator(".words")).to_have_text("A dog runs.")
