"""Make the pictures of the page in docs/images, in Chromium; what the page says of seconds is of this machine.

python docs/browser_pictures.py        (needs Chromium and `pip install -e '.[view,browser]'`)
"""

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import xlgpt
from xlgpt.view import PageServer, site

IMAGES = Path(__file__).parent / "images"
PICTURES = (  # width, height, scheme, chapter of the tour
    ("browser-light.png", 1440, 1340, "light", "7. MRI: watch the answer grow"),
    ("browser-dark.png", 1440, 1180, "dark", "9. Brain surgery"),
    ("browser-phone.png", 390, 844, "light", ""),
)
COMPARED = "() => document.getElementById('tour-said').textContent.startsWith('All')"


def main() -> None:
    """Build the workbook of .github/workflows/page.yml, serve it, and take the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "tiny.xlsx"
        xlgpt.build(
            book, "tiny", context=24, max_bytes=64, generate=8, sheets="lens,tracing,adapters,circuit,steering,features"
        )
        files = site(book)
    with PageServer(files) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"))
        for file, width, height, scheme, chapter in PICTURES:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.set_default_timeout(120_000)
            page.goto(server.url)
            page.wait_for_selector("body.ready")
            if chapter:
                show(page, chapter)
            page.screenshot(path=IMAGES / file)
            page.close()
        server.shutdown()


def show(page: Any, chapter: str) -> None:
    """Go to the first stop of a chapter, and back to the top of the page."""
    page.select_option("#tour-list", label=chapter)
    page.wait_for_function(COMPARED)
    page.wait_for_timeout(1000)  # until the page has scrolled to the spreadsheet
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)


if __name__ == "__main__":
    main()
