"""Documents come, change and go: an updated index answers as one that was built of what is there now."""

from __future__ import annotations

import subprocess
import sys
from threading import Thread

import numpy as np
import pytest

from rerankdistill import artifacts
from rerankdistill.errors import DamagedArtifact, DataError, StaleArtifact, UsageError
from rerankdistill.index import seal
from rerankdistill.index.build import IndexCard, build_index, open_index
from rerankdistill.index.update import update_index
from rerankdistill.kinds import names, open_kind
from rerankdistill.representations import joined

FIXED = {"cagra"}
"""Kinds that are built again."""
EXACT = {
    "bm25",
    "lucene",
    "lucene_impact",
    "flat",
    "milvus",
    "sharded",
    "sparse",
    "maxsim",
    "int8",
    "binary",
    "matryoshka",
}
ROUGH = {"pq", "ivfpq", "sparse", "lucene_impact"}
"""Kinds that do not find a document first that is asked for by its own content."""


def rows_of(content, rows):
    return [content[row] for row in rows] if isinstance(content, list) else content[rows]


def together(one, other):
    if isinstance(one, list):
        return [*one, *other]
    return np.concatenate([one, other]) if isinstance(one, np.ndarray) else joined([one, other])


@pytest.fixture
def changed(kind, world, tmp_path):
    """An index of 300 documents of which 40 go and 20 change into others, and to which 60 come: (folder, class, ids and
    content as they are then, queries)."""
    name, kind_class = kind
    if name in FIXED:
        pytest.skip(f"an index of kind {name} is built again")
    everything, folder = world.content(kind_class), tmp_path / name
    ids, card = world.doc_ids, IndexCard(kind=name)
    inputs = {"docs": "d1", "encoder": "e1"}
    build_index(folder, card, ids[:300], rows_of(everything, np.arange(300)), inputs, kind_class)
    new = [*ids[40:60], *ids[300:360]]
    after = rows_of(everything, np.arange(320, 400))
    update_index(folder, kind_class, new, after, ids[:40], "e1")
    stays = np.arange(60, 300)
    content = together(rows_of(everything, stays), after)
    return folder, kind_class, [*(ids[row] for row in stays), *new], content, world.queries(kind_class)


def test_what_was_deleted_is_gone_what_came_is_found_and_what_changed_is_found_as_it_is_now(changed, kind):
    folder, kind_class, ids, content, _ = changed
    index = open_index(folder, kind_class, expect_encoder="e1")
    for rows in (np.arange(20), np.arange(len(ids) - 80, len(ids))):
        for row, hits in zip(rows, index.search(rows_of(content, rows), 320), strict=True):
            found = [doc_id for doc_id, _ in hits]
            assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))
            assert len(set(found)) == len(found)
            assert set(found) <= set(ids)
            assert ids[row] in found[: 200 if kind[0] in ROUGH else 20]
    assert artifacts.read(folder, "index").counts["documents"] == 320
    seal.check(folder, thorough=True)


def test_an_exact_index_answers_as_one_that_was_built_anew(changed, kind, tmp_path):
    folder, kind_class, ids, content, queries = changed
    if kind[0] not in EXACT:
        pytest.skip("not exact: what was learnt of the first documents stays")
    build_index(tmp_path / "anew", IndexCard(kind=kind[0]), ids, content, {"docs": "", "encoder": "e1"}, kind_class)
    anew = open_index(tmp_path / "anew", kind_class)
    for depth in (1, 10, 400):
        assert open_index(folder, kind_class).search(queries, depth) == anew.search(queries, depth)


def test_an_update_on_top_of_an_update_forgets_neither(changed, world):
    folder, kind_class, ids, content, _ = changed
    update_index(folder, kind_class, ["late"], rows_of(content, [0]), ids[:1], "e1")
    hits = open_index(folder, kind_class).search(rows_of(content, [0]), 400)[0]
    found = {doc_id for doc_id, _ in hits}
    assert "late" in found
    assert found <= {*ids[1:], "late"}
    told = update_index(folder, kind_class, [], rows_of(content, []), ["late", "never"], "e1")
    assert told == {"added": 0, "replaced": 0, "deleted": 1, "unknown": 1, "documents": 319}
    before = (folder / artifacts.MANIFEST).read_bytes()
    assert update_index(folder, kind_class, [], rows_of(content, []), ["late"])["unknown"] == 1
    assert (folder / artifacts.MANIFEST).read_bytes() == before, "nothing to do, nothing written"


def test_who_has_the_index_open_reads_on_in_it(changed, world):
    folder, kind_class, ids, content, queries = changed
    index = open_index(folder, kind_class)
    before = index.search(queries, 30)
    update_index(folder, kind_class, [], rows_of(content, []), ids[:100], "e1")
    assert index.search(queries, 30) == before
    assert open_index(folder, kind_class).search(queries, 30) != before


def test_an_index_can_be_opened_at_any_moment_of_an_update(world, build, tmp_path):
    """A reader that meets the ids of one snapshot and the vectors of the next calls a whole index damaged."""
    build("flat", world.doc_ids, world.vectors)
    folder, kind_class = tmp_path / "flat", open_kind("index", "flat")

    def work():
        for turn in range(20):
            update_index(
                folder, kind_class, [f"n{turn}"], world.vectors[turn : turn + 1], world.doc_ids[turn : turn + 1]
            )

    worker, opened = Thread(target=work), []
    worker.start()
    while worker.is_alive():
        index = open_index(folder, kind_class)
        opened.append(sum(name[0] == "n" for name in index.ids.alive))
        assert len(index.ids) == 400
        assert len(index.search(world.vectors[:1], 400)[0]) == 400
    worker.join()
    assert opened == sorted(opened)
    assert sum(name[0] == "n" for name in open_index(folder, kind_class).ids.alive) == 20


def test_a_graph_of_mostly_deleted_documents_is_built_again(world, build, tmp_path):
    build("hnsw", world.doc_ids, world.vectors)
    kind_class, folder = open_kind("index", "hnsw"), tmp_path / "hnsw"
    update_index(folder, kind_class, [], world.vectors[:0], world.doc_ids[:150])
    assert len(open_index(folder, kind_class).ids) == 400
    update_index(folder, kind_class, ["new"], world.vectors[1:2], world.doc_ids[150:300])
    index = open_index(folder, kind_class)
    assert len(index.ids) == 101
    assert index._index.hnsw.efSearch == 128
    assert index.search(world.vectors[1:2], 1)[0][0][0] == "new"
    assert {doc_id for doc_id, _ in index.search(world.vectors[:1], 400)[0]} == {*world.doc_ids[300:], "new"}


def test_a_kind_that_cannot_be_updated_says_so(world, build, tmp_path):
    assert {name for name in names("index") if not hasattr(open_kind("index", name), "update")} == FIXED
    build("flat", world.doc_ids, world.vectors)
    with pytest.raises(UsageError, match=r"(?s)kind 'cagra' cannot be updated.*build it again"):
        update_index(tmp_path / "flat", open_kind("index", "cagra"), ["x"], world.vectors[:1])


def test_bad_updates_are_refused_and_change_nothing(world, build, tmp_path):
    for name in ("flat", "hnsw", "ivf", "int8"):
        build(name, world.doc_ids, world.vectors)
        folder, kind_class, one = tmp_path / name, open_kind("index", name), world.vectors[:1]
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        bad = np.full((1, 16), np.nan, np.float32)
        for arguments, error, message in (
            ((["x", "y"], one), DataError, "1 documents for 2"),
            ((["x", "x"], world.vectors[:2]), DataError, "'x'"),
            ((["x"], bad), DataError, "NaN"),
            ((["x"], one[:, :8]), DataError, "8 dimensions for an index of 16"),
            ((["x"], one, ["x"]), DataError, "both given and to be deleted"),
            (([], one[:0], world.doc_ids), DataError, "no document would be left"),
            ((["x"], one, [], "e2"), StaleArtifact, "filled by encoder e1"),
        ):
            with pytest.raises(error, match=message):
                update_index(folder, kind_class, *arguments)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert not list(tmp_path.glob(f".{name}.*.part"))


def test_a_damaged_index_is_not_updated(world, build, tmp_path):
    build("flat", world.doc_ids, world.vectors)
    path = tmp_path / "flat" / "index.faiss"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedArtifact, match=r"index\.faiss"):
        update_index(tmp_path / "flat", open_kind("index", "flat"), ["x"], world.vectors[:1])


KILLER = """
import os, signal, sys, time
import numpy as np
from pathlib import Path
from rerankdistill.index.build import IndexCard, build_index
from rerankdistill.index.update import update_index
from rerankdistill.kinds import open_kind
from rerankdistill.codebooks import load_faiss
import pyarrow.compute
vectors = np.random.default_rng(0).normal(size=(5000, 64)).astype(np.float32)
load_faiss()

def work(what, name, folder):
    kind = open_kind("index", name)
    for turn in range(1000):
        if what == "build":
            inputs = {"docs": "d", "encoder": "e"}
            build_index(folder, IndexCard(kind=name), [f"d{n}" for n in range(5000)], vectors, inputs, kind)
        else:
            update_index(folder, kind, [f"n{os.getpid()}-{n}" for n in range(turn * 10, turn * 10 + 10)], vectors[:10])
        os.write(pipe[1], b"+")

for line in sys.stdin:
    what, name, finish, moment, folder = line.split(maxsplit=4)
    pipe = os.pipe()
    child = os.fork()
    if not child:
        work(what, name, Path(folder.strip()))
        os._exit(0)
    os.close(pipe[1])
    done = b"".join(os.read(pipe[0], 1) for _ in range(int(finish)))
    time.sleep(float(moment))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(len(done + os.read(pipe[0], 1000)), flush=True)
    os.close(pipe[0])
"""


@pytest.fixture
def kill():
    """Have a process build or update an index over and over, and kill it some seconds after it has finished so often.
    Says how often it had finished. All are forked from one that has imported everything, so that a moment is a moment
    of work."""
    arguments = [sys.executable, "-c", KILLER]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killer:
        assert killer.stdin
        assert killer.stdout

        def after(what, name, finish, seconds, folder):
            killer.stdin.write(f"{what} {name} {finish} {seconds:.4f} {folder}\n")
            killer.stdin.flush()
            return int(killer.stdout.readline())

        yield after


def test_kill_9_while_building_and_while_updating_loses_nothing_that_was_there(kill, tmp_path):
    """After each killing the index is whole, and holds all that was finished."""
    vectors = np.random.default_rng(0).normal(size=(5000, 64)).astype(np.float32)
    ids = [f"d{n}" for n in range(5000)]
    for what, name in (("build", "flat"), ("update", "flat"), ("update", "hnsw")):
        kind_class, folder = open_kind("index", name), tmp_path / f"{what}-{name}"
        card = IndexCard(kind=name, options={"m": 4, "ef_construction": 8} if name == "hnsw" else {})
        build_index(folder, card, ids, vectors, {"docs": "d", "encoder": "e"}, kind_class)
        had = len(ids)
        for turn, moment in enumerate(np.linspace(0.01, 0.2, 6)):
            done = kill(what, name, turn % 2, moment, folder)
            artifacts.sweep(folder)
            seal.check(folder, thorough=True)
            index = open_index(folder, kind_class)
            alive = len(index.ids.alive)
            assert alive in ({had} if what == "build" else {had + 10 * done, had + 10 * done + 10})
            assert index.search(vectors[:1], 1)[0][0][0] == "d0" or what == "update"
            assert not list(tmp_path.glob(f".{folder.name}.*.*"))
            had = alive
