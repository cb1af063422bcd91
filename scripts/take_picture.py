"""Take the README's picture of the search page, from a running server, with Chromium.

rerankdistill eval quickstart --out work/quickstart
rerankdistill serve work/quickstart &
python scripts/take_picture.py --query "split a string at the last separator"
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import ViewportSize

PICTURE = Path(__file__).parent / "pictures" / "search.png"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SIZE: ViewportSize = {"width": 1180, "height": 760}
COLOURS = 128
"""A palette of so many keeps the file small and its text sharp."""


def take(url: str, query: str, left: str, right: str, dark: bool, out: Path) -> None:
    """Write what the page shows for a query, once its sentences are highlighted."""
    from playwright.sync_api import expect, sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        page = browser.new_page(viewport=SIZE, color_scheme="dark" if dark else "light")
        page.set_default_timeout(120_000)
        page.goto(f"{url}/page")
        for number, engine in enumerate((left, right)):
            if engine:
                page.locator(".column select").nth(number).select_option(engine)
        page.fill("#query", query)
        page.press("#query", "Enter")
        page.wait_for_selector(".column:nth-child(2) mark")
        expect(page.locator("#status")).to_contain_text("results")
        page.keyboard.press("ArrowDown")
        page.screenshot(path=out)
        browser.close()


def shrink(path: Path) -> int:
    """Give a picture a palette; its bytes."""
    from PIL import Image

    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)
    return path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--query", default="split a string at the last separator")
    parser.add_argument("--left", default="", help="engine; default: the page's own choice")
    parser.add_argument("--right", default="")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--out", type=Path, default=PICTURE)
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    take(asked.url, asked.query, asked.left, asked.right, asked.dark, asked.out)
    print(f"{asked.out}: {shrink(asked.out):,} bytes")


if __name__ == "__main__":
    main()
