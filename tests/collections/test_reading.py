"""Whatever lies in a folder, its passages arrive, and what cannot be read is said."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rerankdistill.collections.reading.near import Seen
from rerankdistill.collections.reading.parts import Section, headed
from rerankdistill.collections.reading.passages import passages
from rerankdistill.collections.reading.read import Counts, ReadingOptions, read_documents
from rerankdistill.errors import DataError

PARAGRAPH = "The lighthouse keeper wrote a letter about the storm that broke the eastern pier last winter."
OTHER = "Nobody in the valley had expected the old mill to grind corn again before the autumn rains came."


def read(path: Path, **options: Any) -> tuple[list[Any], Counts]:
    counts = Counts()
    return list(read_documents(path, ReadingOptions(**options), counts)), counts


def put(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_headings_become_titles_and_the_place_becomes_the_id(tmp_path: Path) -> None:
    put(tmp_path, "guide/setup.md", f"# Setup\n\n{PARAGRAPH}\n\n## On a *boat*\n\n{OTHER} [link](http://x.example)\n")
    docs, counts = read(tmp_path)
    assert [(doc.doc_id, doc.title) for doc in docs] == [
        ("guide/setup.md#1", "Setup"),
        ("guide/setup.md#2", "Setup · On a boat"),
    ]
    assert docs[1].text == f"{OTHER} link"
    assert (counts.files, counts.passages) == (1, 2)


def test_front_matter_and_code_of_markdown(tmp_path: Path) -> None:
    put(tmp_path, "a.md", f'---\ntitle: "The Manual"\n---\n{PARAGRAPH}\n\n```\nmake   all\n```\n')
    [doc], _ = read(tmp_path)
    assert (doc.title, doc.text) == ("The Manual", f"{PARAGRAPH} make all")


def test_a_page_is_what_a_reader_sees(tmp_path: Path) -> None:
    page = (
        "<html><head><title>Page</title><style>p{}</style></head><body><nav>Home Next Previous</nav>"
        f"<h1>Mills¶</h1><p>{PARAGRAPH}</p><script>alert('no')</script><h2>Corn</h2>"
        f"<ul><li>{OTHER}</li><li>second&nbsp;point</li></ul><footer>Copyright</footer></body></html>"
    )
    put(tmp_path, "a.html", page)
    docs, _ = read(tmp_path)
    assert [(doc.title, doc.text) for doc in docs] == [
        ("Mills", PARAGRAPH),
        ("Mills · Corn", f"{OTHER} second point"),
    ]


def test_roles_and_directives_of_rst_are_read_as_words(tmp_path: Path) -> None:
    text = f".. _label:\n\nThe Mill\n========\n\n{PARAGRAPH} Use :cmd:`grind <x>` or ``corn``.\n\n.. note:: {OTHER}\n"
    put(tmp_path, "a.rst", text)
    [doc], _ = read(tmp_path)
    assert doc.title == "The Mill"
    assert doc.text == f"{PARAGRAPH} Use grind or corn. {OTHER}"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_found_and_a_guess_is_told(tmp_path: Path, encoding: str) -> None:
    words = "Die Müller kennen große Mühlen über dem Fluß, und die Bäcker führen täglich süßes Gebäck für Gäste."
    put(tmp_path, "a.txt", f"{words} {words[:40]}".encode(encoding))
    [doc], counts = read(tmp_path)
    assert doc.text.startswith(words)
    assert bool(counts.guessed) == (encoding == "cp1252")


def test_records_of_four_formats_give_the_same_documents(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": "1", "Title": "Light", "text": PARAGRAPH}, {"id": "2", "Title": "Mill", "text": OTHER}]
    put(tmp_path, "a/x.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    put(tmp_path, "b/x.csv", "id;Title;text\n" + "".join(";".join(row.values()) + "\n" for row in rows))
    put(tmp_path, "c/x.tsv", "id\tTitle\ttext\n" + "".join("\t".join(row.values()) + "\n" for row in rows))
    (tmp_path / "d").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d/x.parquet")
    for folder in "abcd":
        docs, _ = read(tmp_path / folder)
        assert [(doc.title, doc.text) for doc in docs] == [("Light", PARAGRAPH), ("Mill", OTHER)], folder


def test_word_documents_with_headings_and_tables(tmp_path: Path) -> None:
    import docx

    document = docx.Document()
    document.add_heading("Mills", 1)
    document.add_paragraph(PARAGRAPH)
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "stones", "four"
    document.add_heading("Corn", 2)
    document.add_paragraph(OTHER)
    document.save(str(tmp_path / "a.docx"))
    docs, _ = read(tmp_path)
    assert [(doc.title, doc.text) for doc in docs] == [("Mills", f"{PARAGRAPH} stones four"), ("Mills · Corn", OTHER)]


def test_a_pdf_with_words_is_read_and_one_without_is_told(tmp_path: Path) -> None:
    put(tmp_path, "words.pdf", _pdf(f"({PARAGRAPH}) Tj"))
    put(tmp_path, "scan.pdf", _pdf("0 0 m 100 100 l S"))
    put(tmp_path, "torn.pdf", _pdf("() Tj")[:90])
    docs, counts = read(tmp_path)
    assert [doc.text for doc in docs] == [PARAGRAPH]
    assert {"scan.pdf", "torn.pdf"} == {first for _, first in counts.passed.values()}
    assert any("no text" in why for why in counts.passed)


def _pdf(content: str) -> bytes:
    """A PDF of one page with this content stream."""
    stream = f"BT /F1 12 Tf 20 700 Td {content} ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 2000 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj{body}endobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    return f"{out}{end}trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(out)}\n%%EOF".encode("latin-1")


def test_one_line_of_four_megabytes_becomes_many_passages(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(400_000)]
    put(tmp_path, "a.txt", " ".join(words))
    docs, _ = read(tmp_path, near=0)
    assert " ".join(doc.text for doc in docs).split() == words
    assert max(len(doc.text.split()) for doc in docs) <= 180


def test_loops_of_links_end(tmp_path: Path) -> None:
    put(tmp_path, "in/a.txt", PARAGRAPH)
    (tmp_path / "in/again").symlink_to(tmp_path / "in")
    (tmp_path / "in/up").symlink_to(tmp_path)
    (tmp_path / "in/gone.txt").symlink_to(tmp_path / "nowhere.txt")
    docs, counts = read(tmp_path)
    assert [doc.text for doc in docs] == [PARAGRAPH]
    assert counts.duplicates == 0
    assert counts.passed


@pytest.mark.parametrize(
    "page", ["<div>" * 200_000 + PARAGRAPH, "<table><tr><td>" * 50_000 + PARAGRAPH, "<p>x" * 500_000]
)
def test_a_page_nested_without_end_costs_no_stack_and_no_minute(tmp_path: Path, page: str) -> None:
    put(tmp_path, "bomb.html", page)
    put(tmp_path, "a.txt", OTHER)
    began = time.perf_counter()
    docs, _ = read(tmp_path)
    assert OTHER in [doc.text for doc in docs]
    assert time.perf_counter() - began < 20


def test_a_document_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("word/document.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(600):
            part.write(b"\0" * 2**20)
    put(tmp_path, "a.txt", OTHER)
    docs, counts = read(tmp_path)
    assert [doc.text for doc in docs] == [OTHER]
    assert "it unpacks to 600 MB" in counts.passed


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.txt", b"", "it is empty"),
        ("a.txt", b"\x00\x01\x02" * 100, "binary"),
        ("a.docx", b"no zip", "damaged"),
        ("a.parquet", b"PAR1 no", "damaged"),
        ("a.jsonl", b'{"text": "a"}\n{no', "line 2 is no JSON"),
        ("a.jsonl", b"[1]\n", "no JSON object"),
        ("a.csv", b"count,size\n1,2\n", "text"),
    ],
)
def test_a_file_that_gives_nothing_is_passed_over_with_its_reason(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    put(tmp_path, f"in/{name}", content)
    put(tmp_path, "in/good.txt", OTHER)
    if name == "a.csv":
        content = b"1,2\n"
    docs, counts = read(tmp_path / "in")
    assert OTHER in [doc.text for doc in docs]
    if name != "a.csv":
        assert any(why in reason for reason in counts.passed), counts.passed


def test_a_file_that_may_not_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.txt", PARAGRAPH)
    put(tmp_path, "b.txt", OTHER)
    honest = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied")
        return honest(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    docs, counts = read(tmp_path)
    assert [doc.text for doc in docs] == [OTHER]
    assert counts.passed == {"it cannot be opened (Permission denied)": (1, "a.txt")}


def test_an_empty_folder_and_a_missing_one_are_one_clear_error(tmp_path: Path) -> None:
    put(tmp_path, "in/.hidden.txt", PARAGRAPH)
    put(tmp_path, "in/a.exe", b"MZ")
    with pytest.raises(DataError, match="no file of a known format"):
        read(tmp_path / "in")
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"nothing reads files that end with '.exe'"):
        read(tmp_path / "in/a.exe")


def test_what_was_said_before_is_left_out() -> None:
    long = " ".join(f"{PARAGRAPH} {OTHER} Sentence number {n} is here to make it long." for n in range(6))
    seen = Seen(0.9)
    assert seen.first("a", long) is None
    assert seen.first("b", long.upper().replace(".", "!")) == "a", "case and punctuation do not count"
    assert seen.first("c", long.replace("number 3", "number three")) == "a"
    assert seen.first("d", " ".join(reversed(long.split()))) is None
    assert seen.first("e", "short text") is None
    assert seen.first("f", "short texts") is None, "of a few words every change is a large one"


def test_short_sections_are_read_with_the_next_and_no_word_is_lost() -> None:
    parts = [Section("A", "tiny"), Section("B", f"{PARAGRAPH}\n\n{OTHER}"), Section("C", "rest")]
    found = list(passages(parts, words=20, least=5))
    assert [section.title for section in found] == ["B", "B"]
    assert found[0].text == f"A: tiny {PARAGRAPH}"
    assert found[1].text == OTHER
    assert list(passages([Section("C", "rest")], 20, 5)) == [Section("C", "rest")]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    sentences = [f"Sentence {n} says that the mill by the river is old." for n in range(40)]
    found = [section.text for section in passages([Section("", " ".join(sentences))], 60, 8)]
    assert " ".join(found) == " ".join(sentences)
    assert all(text.endswith(".") for text in found)
    assert all(len(text.split()) <= 90 for text in found)


def test_a_heading_that_repeats_the_one_above_is_said_once() -> None:
    assert headed(["Manual", "Manual", "", "Install"]) == "Manual · Install"
    assert headed(["Book", "Part", "Chapter", "Section"]) == "Book · Chapter · Section"


@pytest.mark.slow
def test_a_hundred_thousand_tiny_files(tmp_path: Path) -> None:
    for number in range(100_000):
        folder = tmp_path / str(number // 1000)
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.txt").write_text(f"note {number}: the mill of village {number * 7919} has {number} stones")
    began, counts = time.perf_counter(), Counts()
    assert sum(1 for _ in read_documents(tmp_path, ReadingOptions(), counts)) == 100_000
    assert counts.files == 100_000
    assert time.perf_counter() - began < 240
