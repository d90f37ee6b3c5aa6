"""`xlgpt view` in a real browser: what is shipped, and what a visitor sees, types and clicks."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHROMIUM
from serving import serving

import xlgpt
from xlgpt.model.checkpoint import Model, load
from xlgpt.oracle.values import expected
from xlgpt.view import export, site
from xlgpt.view.site import PAGE
from xlgpt.workbook.book import Book

PROMPTS = (
    "If today is Tuesday, tomorrow is",
    "If today is Friday, tomorrow is",
    "The capital of France is",
    "Mike is a Jedi. He pulls out his",
    "=1+1 or 'x' <b>?",
)
MARKUP = "<img src=x onerror=alert(1)>"
TIMEOUT = 120_000  # milliseconds: the machine may be busy
TOUR = (Path(__file__).parents[2] / "docs" / "tour.md").read_text(encoding="utf-8")
# Texts that are hard to read: with a contrast to what is behind them below 4.5, or 3 where they are large (WCAG 1.4.3).
PALE = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  return [...document.querySelectorAll("header *, #status *, #talk *, #tour *, #tabs *, footer *")].filter((e) => {
    const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const style = getComputedStyle(e);
    if (!says || e.disabled || !e.checkVisibility()) return false;
    const behind = [];
    for (let p = e; p; p = p.parentElement) behind.unshift(getComputedStyle(p).backgroundColor);
    const [a, b] = [light(over(behind)), light(over([...behind, style.color]))].sort((x, y) => y - x);
    const size = Number.parseFloat(style.fontSize);
    return (a + 0.05) / (b + 0.05) < (size >= 24 || (size >= 18.66 && style.fontWeight >= 600) ? 3 : 4.5);
  }).map((e) => e.tagName + "." + e.className + ": " + e.textContent.slice(0, 30));
})()"""


# ---- what is shipped is what is built


def test_the_page_loads_nothing_from_elsewhere() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="([^"#]+)"', html)) == {
        "page.js", "style.css", "icon.svg", "https://www.ironcalc.com",
    }  # fmt: skip
    for name in ("page.js", "worker.js", "style.css"):
        source = (PAGE / name).read_text(encoding="utf-8")
        assert not re.search(
            r"https?://(?!unused/|www\.w3\.org/)|innerHTML|insertAdjacentHTML|document\.write", source
        ), name


def test_the_tour_of_the_page_is_the_tour_of_the_docs() -> None:
    page = (PAGE / "page.js").read_text(encoding="utf-8")
    for name, where, shown in re.findall(r"^\| `([\w.]+)`(?:, )?(.*?) \| (.+) \|$", TOUR, re.MULTILINE):
        claim = re.compile(
            rf'name:"{re.escape(name)}",words:"{re.escape(where)}",where:\{{[^}}]*\}},shown:"{re.escape(shown)}"'
        )
        assert claim.search(page), (name, where, shown)


# ---- in a real browser


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workbook that the project's web page shows: see .github/workflows/page.yml."""
    path = tmp_path_factory.mktemp("page") / "tiny.xlsx"
    xlgpt.build(
        path,
        model="tiny",
        context=24,
        max_bytes=64,
        generate=8,
        sheets="lens,tracing,adapters,circuit,steering,features",
    )
    return path


@pytest.fixture(scope="module")
def files(book: Path) -> Any:
    return site(book)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Any, files: Any) -> Iterator[Any]:
    """The page with the workbook, ready."""
    with serving(files) as server:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT)
        page.said = []
        page.asked = []
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: (page.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(server.url)
        page.wait_for_selector("body.ready")
        yield page
        assert page.said == []
        assert all(url.startswith(server.url) for url in page.asked)


def calculated(page: Any, act: Callable[[], Any]) -> None:
    """Do something, and wait until it has been calculated."""
    before = page.evaluate("document.body.dataset.calculated")
    act()
    page.wait_for_function("n => document.body.dataset.calculated !== n", arg=before)


def ask(page: Any, prompt: str) -> None:
    page.fill("#prompt", prompt)
    calculated(page, lambda: page.press("#prompt", "Enter"))


def go_to(page: Any, place: str) -> None:
    page.fill("#namebox", place)
    page.press("#namebox", "Enter")
    page.wait_for_function("() => document.activeElement.id === 'scroller' && document.getElementById('here')")


def at(cell: str) -> str:
    """What finds a cell such as $D$8."""
    return f"[data-at='{cell.replace('$', '')}']"


def set_temperature(page: Any, value: str) -> None:
    page.evaluate("([t, v]) => { t.value = v }", [page.query_selector("#temperature"), value])
    calculated(page, lambda: page.dispatch_event("#temperature", "change"))


def shows_sheet(page: Any, name: str) -> None:
    """Wait until a sheet is shown."""
    page.wait_for_function(
        "n => document.getElementById('here') && document.querySelector('#tabs [aria-selected=true]').innerText === n",
        arg=name,
    )


@cache
def opened(book: Path) -> tuple[Book, Model]:
    return Book(book), load("tiny")


def numpy_says(path: Path, prompt: str, **settings: Any) -> Any:
    """What the reference computes from the bundled model's files, with all that looks inside switched off."""
    book, model = opened(path)
    switches = {sheet.stage.switch: 0 for sheet in book.layout.sheets if sheet.stage.switch}
    chosen = book.settings.changed({**switches, "max_new_tokens": 0, **settings})
    return expected(prompt, model, book.layout, chosen)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_page_says_what_numpy_says(page: Any, book: Path, prompt: str) -> None:
    ask(page, prompt)
    wanted = numpy_says(book, prompt)
    count = int(wanted["n_tokens"][0])
    tokens = [chip.split("\n") for chip in page.locator("#tokens li").all_inner_texts()]
    texts, ids = wanted["tokens"][:count], wanted["token_ids"][:count]
    assert tokens == [[str(text).replace(" ", "␣"), str(i)] for text, i in zip(texts, ids, strict=True)]
    assert page.inner_text("#next .big") == str(wanted["next_token"][0]).replace(" ", "␣")
    words, shares = page.locator("#top .word").all_inner_texts(), page.locator("#top .share").all_inner_texts()
    assert words == [str(token).replace(" ", "␣") for token in wanted["top.token"]]
    found = [float(share.rstrip("%")) / 100 for share in shares]
    assert len(found) == 10
    assert np.allclose(found, wanted["top.probability"], atol=0.00051)


@pytest.mark.browser
@pytest.mark.slow
def test_it_goes_on_writing_and_samples(page: Any, book: Path) -> None:
    ask(page, "Mike is a Jedi. He pulls out his")
    calculated(page, lambda: page.click("#go-on"))
    assert page.inner_text("#written .said") == " lightsaber."
    ask(page, "Once upon a time")
    calculated(page, lambda: page.click("#go-on"))
    first = page.inner_text("#written .said")
    assert first == numpy_says(book, "Once upon a time", max_new_tokens=8)["completion"][0]
    calculated(page, lambda: page.click("#go-on"))  # what was written is now part of the prompt
    assert page.input_value("#prompt") == f"Once upon a time{first}"

    ask(page, "The capital of France is")
    set_temperature(page, "1.5")
    calculated(page, lambda: page.click("#go-on"))
    for seed in (1, 2):  # the first is the one in the file
        wanted = numpy_says(book, "The capital of France is", max_new_tokens=8, temperature=1.5, seed=seed)
        assert page.inner_text("#written .said") == wanted["completion"][0]
        if seed == 1:
            calculated(page, lambda: page.click("#redraw"))
    set_temperature(page, "0")


@pytest.mark.browser
@pytest.mark.slow
def test_steering_makes_the_phone_a_lightsaber(page: Any) -> None:
    ask(page, "Mike pulls out his")
    assert page.inner_text("#next .big") == "␣phone"
    calculated(page, lambda: page.check("#steering-on"))
    assert page.inner_text("#next .big") == "␣lightsaber"
    calculated(page, lambda: page.uncheck("#steering-on"))
    assert page.inner_text("#next .big") == "␣phone"


@pytest.mark.browser
@pytest.mark.slow
def test_every_stop_of_the_tour_shows_what_the_docs_say(page: Any) -> None:
    wanted = [line.rpartition(" | ")[2].rstrip(" |") for line in TOUR.splitlines() if line.startswith("| `")]
    said, shown = [], []
    while page.is_enabled("#tour-next"):
        calculated(page, lambda: page.click("#tour-next"))
        page.wait_for_function("() => ![...document.querySelectorAll('#tour .shown')].some(e => e.textContent === '…')")
        rows = page.locator("#tour tbody tr")
        assert rows.count() == 0 or re.fullmatch(
            r"All \d cells show what they should\.", page.inner_text("#tour-said")
        ), page.inner_text("#tour-stop")
        said += page.locator("#tour tbody td:nth-child(2)").all_inner_texts()
        shown += page.locator("#tour tbody .shown").all_inner_texts()
    assert said == wanted
    assert len(shown) > 60
    assert "␣lightsaber" in shown
    assert "1.3" not in shown  # the cells show more digits than the tour: it is not the tour that is shown twice
    page.select_option("#tour-list", "-1")


@pytest.mark.browser
@pytest.mark.slow
def test_a_number_shows_its_cell_and_an_edited_weight_changes_the_answer(page: Any) -> None:
    calculated(page, lambda: page.click("#tour-next"))  # its first stop, with Tuesday
    page.wait_for_function("() => document.getElementById('tour-said').textContent.startsWith('All 2 cells')")
    page.wait_for_function("() => document.getElementById('namebox').value === 'top.probability'")
    page.click("#next .big")
    page.wait_for_function("() => document.getElementById('namebox').value === 'next_token'")
    shows_sheet(page, "Argmax")
    page.wait_for_function("() => document.getElementById('formula').value.includes('INDEX')")
    assert page.inner_text("#here").strip() == "Wednesday"
    before = page.locator("#top .share").first.inner_text()

    go_to(page, "ln_f.weight")
    shows_sheet(page, "ln_f")
    page.wait_for_function("() => document.getElementById('namebox').value === 'ln_f.weight'")
    page.wait_for_function("() => /^-?[0-9.]+$/.test(document.getElementById('formula').value)")
    page.keyboard.type("-900")
    calculated(page, lambda: page.keyboard.press("Enter"))
    assert page.inner_text("#here") == "-900"
    assert page.locator("#top .share").first.inner_text() != before
    assert page.inner_text("#tour-said").startswith("2 of 2 cells differ from the tour.")
    calculated(page, lambda: page.click("#undo"))
    assert page.locator("#top .share").first.inner_text() == before
    assert page.inner_text("#tour-said") == "All 2 cells show what they should."
    page.select_option("#tour-list", "-1")

    go_to(page, "next_token")
    shows_sheet(page, "Argmax")
    go_to(page, "'Block 0'!D8")
    shows_sheet(page, "Block 0")
    page.fill("#namebox", "no such name")
    page.press("#namebox", "Enter")
    page.wait_for_function("() => document.getElementById('said').textContent.includes('no such name')")


@pytest.mark.browser
@pytest.mark.slow
def test_a_sheet_that_is_off_has_a_switch_and_on_it_is_dark_where_it_is_sure(page: Any, book: Path) -> None:
    ask(page, PROMPTS[0])
    go_to(page, "lens.token")
    shows_sheet(page, "Logit lens")
    page.wait_for_selector("#switch:not([hidden])")
    assert page.inner_text("#here") == ""
    calculated(page, lambda: page.click("#switch-on"))
    page.wait_for_selector("#switch", state="hidden")
    wanted = numpy_says(book, PROMPTS[0], **{"lens.on": 1})
    first, sure = Book(book).named("lens.token"), wanted["lens.probability"]
    places = [(i, j) for i, j in np.ndindex(len(sure), first.width) if page.locator(at(first.cell(i, j).first)).count()]
    assert len(places) > 10
    light = []
    for i, j in places:
        cell = page.locator(at(first.cell(i, j).first))
        assert cell.inner_text() == wanted["lens.token"][i, j].replace(" ", "␣")
        red = re.match(r"rgb\((\d+)", cell.evaluate("cell => getComputedStyle(cell).backgroundColor"))
        assert red
        light.append(int(red[1]))
    for surer, place in ((a, b) for a in places for b in places if sure[a] > sure[b] + 0.11):
        assert light[places.index(surer)] < light[places.index(place)]
    go_to(page, "lens.on")
    page.keyboard.type("0")
    calculated(page, lambda: page.keyboard.press("Enter"))


@pytest.mark.browser
@pytest.mark.slow
def test_what_a_workbook_says_is_text(page: Any) -> None:
    ask(page, MARKUP)
    assert page.locator("main img").count() == 0
    assert page.input_value("#prompt") == MARKUP
    tokens = "".join(page.locator("#tokens button").evaluate_all("all => all.map(b => b.firstChild.textContent)"))
    assert tokens == MARKUP.replace(" ", "␣")
    go_to(page, "prompt")
    shows_sheet(page, "Home")
    page.wait_for_function("() => document.getElementById('namebox').value === 'prompt'")
    assert page.inner_text("#here") == MARKUP
    calculated(page, lambda: page.click("#go-on"))
    assert page.inner_text("#written span").startswith(MARKUP)
    assert page.locator("main img").count() == 0


@pytest.mark.browser
@pytest.mark.slow
def test_a_prompt_that_does_not_fit_is_said_in_a_sentence(page: Any) -> None:
    ask(page, "a" * 70)
    assert "longer than 64 bytes" in page.inner_text("#wrong")
    assert not page.is_visible("#answer")
    ask(page, "The cow says")
    assert page.is_visible("#answer")
    assert not page.is_visible("#wrong")


@pytest.mark.browser
@pytest.mark.slow
def test_the_keyboard_is_enough(page: Any) -> None:
    go_to(page, "Tokens!A1")
    shows_sheet(page, "Tokens")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "PageDown", "PageUp", "ArrowLeft", "Home"):
        page.keyboard.press(key)
    page.wait_for_function("() => document.getElementById('namebox').value === 'A3'")
    page.wait_for_function(
        "() => document.getElementById('chosen').textContent.includes('A3: GPT-2 does not read letters')"
    )
    page.focus("#tabs [aria-selected=true]")
    page.keyboard.press("ArrowRight")
    shows_sheet(page, "BPE merges")
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, select')].filter(e => !e.hidden && !(
            e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.id)"""
    )
    assert unnamed == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("book.ic.gz", b"no gzip at all", "no workbook that the engine can read"),
        ("book.ic.gz", b"\x1f\x8b cut short", "book.ic.gz is damaged"),
        ("book.json", b"{", "book.json is damaged"),
        ("book.json", None, "book.json cannot be loaded"),
    ],
)
def test_a_broken_file_is_said_in_a_sentence(
    browser: Any, files: Any, name: str, content: bytes | None, sentence: str
) -> None:
    broken = {key: value for key, value in {**files, name: content}.items() if value is not None}
    with serving(broken) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_selector("body.failed", timeout=TIMEOUT)
        assert re.fullmatch(rf"That did not work: .*{re.escape(sentence)}.*\.", page.inner_text("#said"))
        page.close()


@pytest.mark.browser
@pytest.mark.slow
def test_an_exported_folder_can_be_opened_as_it_is_on_a_phone(browser: Any, files: Any, tmp_path: Path) -> None:
    size = export(files, tmp_path / "page")
    assert size < 10_000_000  # what a visitor loads
    export(files, tmp_path / "page")  # once more, over the first
    page = browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True, color_scheme="dark")
    page.set_default_timeout(TIMEOUT)
    page.goto((tmp_path / "page" / "index.html").as_uri())
    assert not page.is_enabled("#go")  # a click now would load the page anew
    page.wait_for_selector("body.ready, body.failed")
    assert "Ready" in page.inner_text("#said")
    assert page.inner_text("#next .big") == "␣Wednesday"
    for scheme, ground in (("dark", "rgb(18, 24, 30)"), ("light", "rgb(245, 247, 249)")):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        assert page.evaluate(PALE) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.tap("#tour-next")  # the stop stays in sight; its cells are a tap away
    page.wait_for_function("() => document.getElementById('tour-said').textContent.startsWith('All 2 cells')")
    assert 0 <= page.locator("#tour h3").bounding_box()["y"] < 740
    page.tap("#claim-0 button")
    page.wait_for_function("() => document.getElementById('namebox').value === 'next_token'")
    page.close()
