"""The page in a real browser: search, compare, vote, by mouse and by keyboard alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import serving
from tiny_work import write_work

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
MS = 60_000
"""A busy machine is slow; nothing here is about speed."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=2 * MS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_bert: str, tiny_cross: Path) -> Path:
    return write_work(tmp_path_factory.mktemp("page") / "work", tiny_bert, tiny_cross)


@pytest.fixture(scope="module")
def address(work: Path, browser: Any) -> Iterator[str]:
    with serving(work, device="cpu") as found:
        yield found


@pytest.fixture
def page(address: str, browser: Any) -> Iterator[Any]:
    """The page, opened; whatever it complains of in the console fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(MS)
    found, faults = context.new_page(), []
    found.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: faults.append(str(error)))
    asked: list[str] = []
    found.on("request", lambda request: asked.append(request.url))
    found.goto(f"{address}/")
    found.wait_for_selector(".column")
    yield found
    context.close()
    assert not faults
    assert all(url.startswith(address) for url in asked), "something was fetched from elsewhere"


def expect(locator: Any) -> Any:
    """Playwright's own waiting: its ``wait_for_function`` evaluates a string, which the page forbids."""
    from playwright.sync_api import expect

    expect.set_options(timeout=MS)
    return expect(locator)


def until_said(page: Any, words: str) -> None:
    expect(page.locator("#status")).to_contain_text(words)


def ask(page: Any, query: str) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")
    until_said(page, "results")


def shown(page: Any, column: int) -> list[str]:
    articles = page.locator(".column").nth(column).locator("article").all()
    return [article.get_attribute("data-doc-id") for article in articles]


def test_two_engines_answer_side_by_side(page, address):
    ask(page, "cat rain")
    asked = page.request.post(f"{address}/search", data={"query": "cat rain", "engine": "small"}).json()
    assert shown(page, 0)[:2] == ["d00", "d16"]
    assert shown(page, 1) == [hit["doc_id"] for hit in asked["hits"]]
    assert page.locator(".column select").nth(0).input_value() == "bm25"
    assert page.locator(".column select").nth(1).input_value() == "small"
    assert all(text.endswith(" ms") for text in page.locator(".latency").all_inner_texts())
    assert page.locator(".column").nth(1).locator(".moved").count() > 0, "what the student moved is said"
    page.locator(".column select").nth(0).select_option("small")
    expect(page.locator(".column").nth(1).locator(".moved")).to_have_count(0)
    assert shown(page, 0) == shown(page, 1)


def test_sentences_are_highlighted_and_a_documents_markup_is_text(page):
    ask(page, "cat rain")
    page.wait_for_selector(".column:nth-child(2) mark")
    for mark in page.locator("mark").all_inner_texts():
        assert mark.strip().endswith(".")
    assert "<b>& more</b>" in page.locator("article .text").first.inner_text()
    assert page.locator("article .text b").count() == 0


def test_a_filter_narrows_both_columns(page):
    page.get_by_label("kind").select_option(label="animal")
    ask(page, "cat rain")
    assert page.locator(".about").count() > 0
    assert all("kind animal" in text for text in page.locator(".about").all_inner_texts())


def test_keyboard_alone_searches_opens_and_votes(page, work):
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("dog wind")
    page.keyboard.press("Enter")
    until_said(page, "results")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    place = "(() => { const here = document.activeElement; return here.dataset.docId; })()"
    assert page.evaluate(place) == shown(page, 0)[1]
    page.keyboard.press("k")
    assert page.evaluate(place) == shown(page, 0)[0]
    page.keyboard.press("ArrowRight")
    doc_id = page.evaluate(place)
    assert doc_id == shown(page, 1)[0]
    page.keyboard.press("Enter")
    assert page.locator(".column").nth(1).locator(".hit.open").count() == 1
    page.keyboard.press("1")
    until_said(page, "written down")
    assert page.evaluate(place) == doc_id, "the focus stays"
    assert f"{doc_id}\t1\n" in (work / "votes/qrels/test.tsv").read_text("utf-8")
    page.keyboard.press("1")
    until_said(page, "taken back")
    assert f"{doc_id}\t1\n" not in (work / "votes/qrels/test.tsv").read_text("utf-8")


def test_a_vote_by_mouse_is_read_by_evaluation(page, work):
    from rerankdistill.collections.load import load_collection

    ask(page, "bird cloud")
    doc_id = shown(page, 1)[2]
    button = page.locator(".column").nth(1).locator("article").nth(2).locator(".vote").nth(1)
    button.click()
    until_said(page, "written down")
    assert button.get_attribute("aria-pressed") == "true"
    votes = load_collection(str(work / "votes"))
    queries = {query.query_id: query.text for query in votes.queries("test")}
    assert ("bird cloud", doc_id, 0) in [(queries[q], d, g) for q, d, g in votes.judgements("test")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_that_shuts_people_out(page, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make install")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    ask(page, "cat rain")
    page.wait_for_selector("mark")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"


def test_a_fault_is_said_on_the_page(page, address):
    ask(page, "cat rain")
    page.route(f"{address}/search", lambda route: route.fulfill(json={"error": {"message": "out of tea"}}, status=200))
    page.fill("#query", "dog")
    page.press("#query", "Enter")
    until_said(page, "Not answered")
