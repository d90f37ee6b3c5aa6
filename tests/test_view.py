"""`xlgpt view`: the workbook on a web page, in a real browser, and the server that answers nobody else."""

import http.client
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHROMIUM, run_xlgpt

import xlgpt
from xlgpt.errors import EngineNotFound, OutputError, PortTaken, TooManyCells, XlgptError
from xlgpt.model.checkpoint import load
from xlgpt.oracle.values import expected
from xlgpt.view import PageServer, export, site
from xlgpt.view.convert import chosen_vector, convert
from xlgpt.view.serve import POLICY
from xlgpt.view.site import PAGE
from xlgpt.workbook.book import Book

FILES = {"index.html": b"<!doctype html>", "page.js": b"1", "ironcalc.wasm": b"\0asm", "book.ic.gz": b"\x1f\x8b"}
PROMPTS = (
    "If today is Tuesday, tomorrow is",
    "If today is Friday, tomorrow is",
    "The capital of France is",
    "Mike is a Jedi. He pulls out his",
    "=1+1 or 'x' <b>?",
)
MARKUP = "<img src=x onerror=alert(1)>"
TIMEOUT = 120_000  # milliseconds: the machine may be busy


# ---- the server


@contextmanager
def serving(files: Any) -> Iterator[PageServer]:
    with PageServer(files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server() -> Iterator[PageServer]:
    with serving(FILES) as server:
        yield server


def asked(server: PageServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.headers, answer.read()
    connection.close()
    return found


def test_each_file_comes_with_its_type_and_the_policy(server: PageServer) -> None:
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/ironcalc.wasm", "application/wasm"),
        ("/book.ic.gz?1", "application/gzip"),
    ):
        status, headers, content = asked(server, path)
        name = path.strip("/").partition("?")[0] or "index.html"
        assert (status, headers["Content-Type"], content) == (200, kind, FILES[name])
        assert headers["Content-Security-Policy"] == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert "unsafe-inline" not in POLICY
    assert "http" not in POLICY


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/pyproject.toml",
        "//etc/passwd",
        "/etc/passwd",
        "/.",
        "/..",
        "/book",
        "/page.js/",
        "*",
    ],
)
def test_it_has_no_other_files(server: PageServer, path: str) -> None:
    status, headers, content = asked(server, path)
    assert status == 404
    assert b"<!doctype html>\n" not in content
    assert headers["Content-Security-Policy"] == POLICY


def test_it_answers_no_other_host_and_no_other_method(server: PageServer) -> None:
    port = server.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        status, _, content = asked(server, "/page.js", host)
        assert (status, FILES["page.js"] == content) == (421, False), host
    assert asked(server, "/page.js", f"localhost:{port}")[0] == 200
    assert asked(server, "/page.js", method="HEAD")[2] == b""
    assert asked(server, "/page.js", method="POST")[0] == 501


def test_it_listens_on_this_machine_only(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(PortTaken, match=rf"Port {server.server_port} is in use"):
        PageServer(FILES, server.server_port)


# ---- what goes wrong is said in a sentence


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nothing.xlsx", "--no-open"], 1, r"xlgpt: There is no file nothing\.xlsx\."),
        (["pyproject.toml", "--no-open"], 1, r"xlgpt: pyproject\.toml is no \.xlsx or \.xlsb workbook"),
        (["a.xlsx", "--port", "70000"], 2, r"70000"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments: list[str], code: int, sentence: str) -> None:
    done = run_xlgpt("view", *arguments, cwd=Path(__file__).parents[1])
    assert done.returncode == code
    assert re.search(sentence, done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_without_the_right_ironcalc_it_says_how_to_get_it(tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ironcalc", None)
    with pytest.raises(EngineNotFound, match=r"pip install 'xlgpt\[view\]'"):
        convert(tiny_book)
    newer = type("ironcalc", (), {"__version__": "0.9.1"})
    monkeypatch.setitem(sys.modules, "ironcalc", newer)
    with pytest.raises(EngineNotFound, match=r"0\.9\.1 is installed.*environment of its own"):
        convert(tiny_book)


def test_too_many_cells_are_refused(tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlgpt.view.convert.MOST_CELLS", 100_000)
    with pytest.raises(TooManyCells, match=r"has [5-9]\d\d,\d{3} cells; a page in the browser holds 100,000"):
        convert(tiny_book)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        export(FILES, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(XlgptError):
            export(FILES, folder)


def test_a_chosen_vector_is_found_by_its_exact_letters(tiny_book: Path) -> None:
    book = Book(tiny_book)
    formula, names = chosen_vector(book), book.named("steering.names")
    assert formula.count("EXACT(") == names.height > 5
    assert f"EXACT(steering.vector,{names.cell(2, 0).first})*3" in formula


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
    tour = (Path(__file__).parents[1] / "docs" / "tour.md").read_text(encoding="utf-8")
    page = (PAGE / "page.js").read_text(encoding="utf-8")
    for name, where, shown in re.findall(r"^\| `([\w.]+)`(?:, )?(.*?) \| (.+) \|$", tour, re.MULTILINE):
        claim = re.compile(
            rf'name:"{re.escape(name)}",words:"{re.escape(where)}",where:\{{[^}}]*\}},shown:"{re.escape(shown)}"'
        )
        assert claim.search(page), (name, where, shown)


# ---- in a real browser


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workbook that the project's web page shows: see .github/workflows/page.yml."""
    path = tmp_path_factory.mktemp("page") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", context=24, max_bytes=64, generate=8, sheets="lens,circuit,steering,features")
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


def shows_sheet(page: Any, name: str) -> None:
    """Wait until a sheet is shown."""
    page.wait_for_function(
        "n => document.querySelector('[aria-selected=true]').textContent === n && !!document.querySelector('#here')",
        arg=name,
    )


def numpy_says(book: Path, prompt: str, **settings: Any) -> Any:
    """What the reference computes from the bundled model's files, with all that looks inside switched off."""
    opened = Book(book)
    switches = {sheet.stage.switch: 0 for sheet in opened.layout.sheets if sheet.stage.switch}
    chosen = opened.settings.changed({**switches, "max_new_tokens": 0, **settings})
    return expected(prompt, load("tiny"), opened.layout, chosen)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_page_says_what_numpy_says(page: Any, book: Path, prompt: str) -> None:
    ask(page, prompt)
    wanted = numpy_says(book, prompt)
    count = int(wanted["n_tokens"][0])
    tokens = [chip.split("\n") for chip in page.locator("#tokens li").all_inner_texts()]
    shown = [
        [str(text).replace(" ", "␣"), str(i)] for text, i in zip(wanted["tokens"], wanted["token_ids"], strict=True)
    ]
    assert tokens == shown[:count]
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

    ask(page, "Once upon a time")
    page.evaluate("t => { t.value = '1.5'; t.dispatchEvent(new Event('input')) }", page.query_selector("#temperature"))
    calculated(page, lambda: page.dispatch_event("#temperature", "change"))
    calculated(page, lambda: page.click("#go-on"))
    for seed in (1, 2):  # the first is the one in the file
        wanted = numpy_says(book, "Once upon a time", max_new_tokens=8, temperature=1.5, seed=seed)
        assert page.inner_text("#written .said") == wanted["completion"][0]
        calculated(page, lambda: page.click("#redraw"))
    page.evaluate("t => { t.value = '0' }", page.query_selector("#temperature"))
    calculated(page, lambda: page.dispatch_event("#temperature", "change"))


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
    tour = (Path(__file__).parents[1] / "docs" / "tour.md").read_text(encoding="utf-8")
    wanted = [line.rpartition(" | ")[2].rstrip(" |") for line in tour.splitlines() if line.startswith("| `")]
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
    ask(page, "The capital of France is")
    page.click("#next .big")
    page.wait_for_function("() => document.getElementById('namebox').value === 'next_token'")
    shows_sheet(page, "Argmax")
    page.wait_for_function("() => document.getElementById('formula').value.includes('INDEX')")
    assert page.inner_text("#here").strip() == "Paris"
    before = page.locator("#top .share").first.inner_text()

    go_to(page, "ln_f.weight")
    shows_sheet(page, "ln_f")
    page.wait_for_function("() => document.getElementById('namebox').value === 'ln_f.weight'")
    page.wait_for_function("() => /^-?[0-9.]+$/.test(document.getElementById('formula').value)")
    page.keyboard.type("40")
    calculated(page, lambda: page.keyboard.press("Enter"))
    assert page.inner_text("#here") == "40"
    assert page.locator("#top .share").first.inner_text() != before
    calculated(page, lambda: page.click("#undo"))
    assert page.locator("#top .share").first.inner_text() == before

    go_to(page, "next_token")
    shows_sheet(page, "Argmax")
    go_to(page, "'Block 0'!D8")
    shows_sheet(page, "Block 0")
    page.fill("#namebox", "no such name")
    page.press("#namebox", "Enter")
    page.wait_for_function("() => document.getElementById('said').textContent.includes('no such name')")


@pytest.mark.browser
@pytest.mark.slow
def test_a_sheet_that_is_off_has_a_switch(page: Any) -> None:
    go_to(page, "lens.token")
    shows_sheet(page, "Logit lens")
    page.wait_for_selector("#switch:not([hidden])")
    assert page.inner_text("#here") == ""
    calculated(page, lambda: page.click("#switch-on"))
    page.wait_for_selector("#switch", state="hidden")
    assert page.inner_text("#here") != ""
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
    page.wait_for_function("() => document.querySelector('#tabs [aria-selected=true]').textContent === 'Pieces'")
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, select')].filter(e => !e.hidden && !(
            e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.id)"""
    )
    assert unnamed == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_light_and_dark(browser: Any, files: Any, scheme: str) -> None:
    with serving(files) as server:
        page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
        page.set_default_timeout(TIMEOUT)
        page.goto(server.url)
        page.wait_for_selector("body.ready")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(18, 24, 30)") == (scheme == "dark")
        page.close()


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
def test_an_exported_folder_can_be_opened_as_it_is(browser: Any, files: Any, tmp_path: Path) -> None:
    size = export(files, tmp_path / "page")
    assert size < 10_000_000  # what a visitor loads
    export(files, tmp_path / "page")  # once more, over the first
    page = browser.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto((tmp_path / "page" / "index.html").as_uri())
    page.wait_for_selector("body.ready, body.failed")
    assert "Ready" in page.inner_text("#said")
    assert page.inner_text("#next .big") == "␣Wednesday"
    page.close()
