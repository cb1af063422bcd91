"""The store equals a dict, whatever happens to the process, the disk or the files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from score_fakes import FakeTeacher, make_groups, value

from rerankdistill import artifacts
from rerankdistill.errors import (
    ArtifactError,
    DamagedArtifact,
    MissingArtifact,
    RerankDistillWarning,
    StaleArtifact,
)
from rerankdistill.scores import log
from rerankdistill.scores.pairs import PairIndex, pair_keys
from rerankdistill.scores.repair import repair
from rerankdistill.scores.store import LOG, open_store, read_store, store_folder
from rerankdistill.types import Group, Query

TEACHER = FakeTeacher()


def answers(groups):
    return list(zip(groups, FakeTeacher().judge(groups), strict=True))


def group(query: int, docs: list[int]) -> Group:
    return Group(Query(f"q{query}", f"query {query}"), tuple(f"d{d}" for d in docs), tuple(f"text {d}" for d in docs))


def folder_of(root: Path) -> Path:
    return store_folder(root, "fake", TEACHER.fingerprint)


def filled(root: Path, batches: int = 6, compact_pairs: int = 40) -> Path:
    """A store with parts and a log."""
    groups = make_groups(batches * 2 + 1, 10)
    with open_store(root, "fake", TEACHER, compact_pairs=compact_pairs) as store:
        for at in range(batches):
            store.append(answers(groups[2 * at : 2 * at + 2]))
        store.append(answers(groups[-1:]))
    return folder_of(root)


batch_of_pairs = st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 6), min_size=1, max_size=5)), max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), batch_of_pairs),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("crash"), st.tuples(st.integers(1, 6), batch_of_pairs)),
        st.tuples(st.just("tear"), st.integers(1, 200)),
    ),
    max_size=12,
)


class Crash(BaseException):
    """Stands for kill -9: nothing but ``finally`` may run after it."""


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_sequence_of_appends_crashes_and_compactions_equals_a_dict(tmp_path_factory, steps):
    root = tmp_path_factory.mktemp("store")
    known: dict[tuple[int, int], float] = {}
    store = open_store(root, "fake", TEACHER, compact_pairs=9)

    def put(rows):
        store.append(answers([group(q, d) for q, d in rows]))
        known.update({(q, x): value(f"query {q}", f"text {x}") for q, d in rows for x in d})

    for name, detail in steps:
        if name == "append":
            put(detail)
        elif name == "compact":
            store.compact()
        elif name == "reopen":
            store.close()
            store = open_store(root, "fake", TEACHER, compact_pairs=9)
        elif name == "crash":
            after, rows = detail
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", _crash_at(after))
                try:
                    put(rows)
                    store.compact()
                except Crash:
                    pass
            store.close()
            store = open_store(root, "fake", TEACHER, compact_pairs=9)
            there = {(q, d) for q in range(5) for d in range(7) if not np.isnan(store.lookup([group(q, [d])])[0][0])}
            batch = {(q, d) for q, docs in rows for d in docs}
            assert there in (set(known), set(known) | batch), "a batch is half there"
            known = {(q, d): value(f"query {q}", f"text {d}") for q, d in there}
        elif name == "tear":
            store.close()
            with (folder_of(root) / LOG).open("ab") as file:
                file.write(log.encode(10**6, store._table(answers([group(9, [9])]))[0])[:-detail])
            store = open_store(root, "fake", TEACHER, compact_pairs=9)
    assert len(store) == len(known)
    for query in range(5):
        found = store.lookup([group(query, list(range(7)))])[0]
        wanted = np.array([known.get((query, doc), np.nan) for doc in range(7)], np.float32)
        assert np.array_equal(found, wanted, equal_nan=True)
    store.close()
    with read_store(folder_of(root)) as reader:
        assert len(reader) == len(known)


def _crash_at(call: int):
    calls = iter(range(1, 1000))
    real = os.fsync

    def fsync(descriptor):
        if next(calls) == call:
            raise Crash
        real(descriptor)

    return fsync


@pytest.mark.parametrize("step", range(1, 8))
def test_a_crash_at_every_step_of_a_compaction_neither_loses_nor_doubles_a_batch(tmp_path, monkeypatch, step):
    groups = make_groups(8, 10)
    store = open_store(tmp_path, "fake", TEACHER, compact_pairs=10**6)
    for each in groups[:4]:
        store.append(answers([each]))
    store.compact()  # a small part, which the next compaction swallows
    for each in groups[4:]:
        store.append(answers([each]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _crash_at(step))
        try:
            store.compact()
            crashed = False
        except Crash:
            crashed = True
    store.close()
    assert crashed == (step <= 5), "the number of steps changed: widen this test"
    with open_store(tmp_path, "fake", TEACHER) as again:
        assert again.count_missing(groups) == 0
        assert len(again) == 80
        again.append(answers(make_groups(9, 10)[8:]))
        again.compact()
        parts = [part["name"] for part in again._manifest.counts["parts"]]
    assert sorted(parts) == sorted(path.name for path in folder_of(tmp_path).glob("*.parquet"))
    assert sum(pq.read_metadata(folder_of(tmp_path) / part).num_rows for part in parts) == 90


def test_missing_pairs_are_nan_in_place_and_a_text_stands_for_itself_whatever_its_id(tmp_path):
    with open_store(tmp_path, "fake", TEACHER) as store:
        store.append(answers([group(1, [1, 3])]))
        found = store.lookup([group(1, [0, 1, 2, 3])])[0]
        assert np.array_equal(np.isnan(found), [True, False, True, False])
        renamed = Group(Query("other", "query 1"), ("x",), ("text 3",))
        assert store.lookup([renamed])[0][0] == found[3]
        edited = Group(Query("q1", "query 1"), ("d3",), ("text 3, edited",))
        assert np.isnan(store.lookup([edited])[0][0]), "a changed text kept its old score"


def test_a_teacher_by_ids_is_joined_by_ids_since_it_reads_no_texts(tmp_path):
    teacher = FakeTeacher()
    teacher.needs_texts = False
    blank = Group(Query("q1", "query 1"), ("a", "b"), ("", ""))
    with open_store(tmp_path, "fake", teacher) as store:
        store.append([(blank, np.array([1.0, 2.0], np.float32))])
        assert store.lookup([blank])[0].tolist() == [1.0, 2.0]
        assert np.isnan(store.lookup([Group(Query("q2", "query 1"), ("a",), ("",))])[0][0])


def test_missing_asks_once_for_a_text_that_comes_twice(tmp_path):
    with open_store(tmp_path, "fake", TEACHER) as store:
        twice = Group(Query("q", "query 1"), ("a", "b", "c"), ("same", "other", "same"))
        assert [each.doc_ids for each in store.missing([twice])] == [("a", "b")]
        store.append(answers([twice]))
        assert len(store) == 2
        found = store.lookup([twice])[0]
        assert found[0] == found[2]
        assert not np.isnan(found).any()


def test_two_writers_at_once_are_refused_with_the_pid_of_the_first(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from score_fakes import FakeTeacher; from pathlib import Path\n"
        "from rerankdistill.scores.store import open_store\n"
        "open_store(Path(sys.argv[1]), 'fake', FakeTeacher())"
    )
    with open_store(tmp_path, "fake", TEACHER) as store:
        store.append(answers([group(1, [1])]))
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)], capture_output=True, text=True
        )
        assert f"pid {os.getpid()}" in other.stderr
        assert "ArtifactError" in other.stderr
        with read_store(folder_of(tmp_path)) as reader:
            assert len(reader) == 1, "a reader must not be kept out by a writer"
            with pytest.raises(ArtifactError, match="reading only"):
                reader.append(answers([group(1, [2])]))
    with open_store(tmp_path, "fake", TEACHER):
        pass


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_part_is_named_and_only_its_pairs_are_scored_again(tmp_path, damage):
    folder = filled(tmp_path)
    part = sorted(folder.glob("*.parquet"))[0]
    data = bytearray(part.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 1
    part.write_bytes(data)
    for opener in (lambda: open_store(tmp_path, "fake", TEACHER), lambda: read_store(folder)):
        with pytest.raises(DamagedArtifact, match="truncated or corrupted") as error:
            opener()
        assert part.name in str(error.value)
        assert "40 pairs" in error.value.fix
    part.unlink()
    with pytest.raises(DamagedArtifact, match="missing"):
        read_store(folder)
    with pytest.warns(RerankDistillWarning, match="40 pairs will be scored again"):
        store = open_store(tmp_path, "fake", TEACHER)
    assert store.count_missing(make_groups(13, 10)) == 40
    store.append(answers(list(store.missing(make_groups(13, 10)))))
    store.close()
    with read_store(folder) as reader:
        assert len(reader) == 130


def test_repair_sets_damaged_parts_aside_and_keeps_the_rest(tmp_path):
    folder = filled(tmp_path)
    part = sorted(folder.glob("*.parquet"))[1]
    part.write_bytes(b"PAR1")
    assert repair(folder) == ((part.name,), 40, 0)
    with open_store(tmp_path, "fake", TEACHER) as store:
        assert len(store) == 90
        assert store.count_missing(make_groups(13, 10)) == 40
    assert repair(folder) == ((), 0, 0)


def test_a_bad_checksum_in_the_middle_of_the_log_is_damage_and_not_a_torn_tail(tmp_path):
    folder = filled(tmp_path, compact_pairs=10**6)
    data = bytearray((folder / LOG).read_bytes())
    second = list(log.records(bytes(data)))[1]
    data[second.start + log.HEAD + 30] ^= 0xFF
    (folder / LOG).write_bytes(data)
    for opener in (lambda: open_store(tmp_path, "fake", TEACHER), lambda: read_store(folder)):
        with pytest.raises(DamagedArtifact, match="bad checksum") as error:
            opener()
        assert "repair" in error.value.fix
    assert repair(folder).log_gaps == 1
    with open_store(tmp_path, "fake", TEACHER) as store:
        assert len(store) == 110
        assert store.count_missing(make_groups(13, 10)) == 20


@given(cut=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_a_log_cut_anywhere_reads_as_its_whole_batches(tmp_path_factory, cut):
    data = _log_bytes(tmp_path_factory)
    whole = list(log.records(data))
    kept = [record for record in whole if record.end <= len(data) - cut]
    assert [r.sequence for r in log.records(data[: len(data) - cut])] == [r.sequence for r in kept]


def _log_bytes(factory, cache={}):  # noqa: B006
    if not cache:
        cache["log"] = (filled(factory.mktemp("log"), compact_pairs=10**6) / LOG).read_bytes()
    return cache["log"]


@pytest.mark.parametrize("when", ["append", "compact"])
def test_a_full_disk_is_one_clear_error_and_the_store_stays_readable(tmp_path, monkeypatch, when):
    store = open_store(tmp_path, "fake", TEACHER)
    store.append(answers([group(1, [1, 2])]))

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if when == "append":
            real = os.pwrite
            patch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:40], at) if at < 500 else full())
        else:
            patch.setattr(pq, "write_table", full)
        with pytest.raises(ArtifactError, match="No space left") as error:
            _go_on(store)
    assert "free some space" in error.value.fix
    kept = len(store)
    with read_store(folder_of(tmp_path)) as reader:
        assert len(reader) == kept
    store.append(answers([group(99, [1])]))
    store.compact()
    store.close()
    with read_store(folder_of(tmp_path)) as reader:
        assert len(reader) == kept + 1


def _go_on(store):
    for number in range(2, 60):
        store.append(answers([group(number, [1, 2, 3, 4])]))
    store.compact()


def test_another_fingerprint_is_another_folder_and_a_foreign_manifest_is_stale(tmp_path):
    filled(tmp_path)
    other = FakeTeacher(fingerprint="f" * 16)
    with open_store(tmp_path, "fake", other) as store:
        assert len(store) == 0, "scores of another revision were taken over"
    assert len(list(tmp_path.iterdir())) == 2
    store_folder(tmp_path, "fake", other.fingerprint).rename(tmp_path / "aside")
    folder_of(tmp_path).rename(store_folder(tmp_path, "fake", other.fingerprint))
    with pytest.raises(StaleArtifact, match=f"{TEACHER.fingerprint}, not {'f' * 16}"):
        open_store(tmp_path, "fake", other)
    with pytest.raises(StaleArtifact):
        read_store(store_folder(tmp_path, "fake", other.fingerprint), "f" * 16)


def test_a_store_that_lost_its_manifest_is_not_silently_emptied(tmp_path):
    folder = filled(tmp_path)
    (folder / artifacts.MANIFEST).unlink()
    with pytest.raises(DamagedArtifact, match="no manifest"):
        open_store(tmp_path, "fake", TEACHER)
    assert list(folder.glob("*.parquet"))
    with pytest.raises(MissingArtifact):
        read_store(folder)


def test_parts_are_plain_parquet_that_anyone_joins_by_ids(tmp_path):
    folder = filled(tmp_path)
    rows = [row for part in folder.glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    assert {"query_id", "doc_id", "query", "doc", "score"} == set(rows[0])
    assert all(
        row["score"] == np.float32(value(f"query {row['query_id'][1:]}", f"text of {row['doc_id']}")) for row in rows
    )


def test_the_index_keeps_the_first_score_of_a_key_and_finds_every_one():
    rng = np.random.default_rng(5)
    index, known = PairIndex(), {}
    for _ in range(60):
        keys = rng.integers(0, 3000, rng.integers(1, 200)).astype(np.uint64)
        scores = rng.normal(size=len(keys)).astype(np.float32)
        index.add(keys, scores)
        for key, score in zip(keys.tolist(), scores.tolist(), strict=True):
            known.setdefault(key, score)
    assert len(index) == len(known)
    scores, found = index.find(np.arange(3000, dtype=np.uint64))
    assert found.sum() == len(known)
    assert all(scores[key] == np.float32(known[key]) for key in known)
    assert len(index._runs) < 12, "lookups would slow down with every batch"


def test_pair_keys_tell_the_query_from_the_document():
    a, b = np.array([3], np.uint64), np.array([4], np.uint64)
    assert pair_keys(a, b) != pair_keys(b, a)
