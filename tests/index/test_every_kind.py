"""What every kind of index promises, whoever wrote it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rerankdistill import artifacts
from rerankdistill.cards import list_cards
from rerankdistill.errors import CardError, DamagedArtifact, DataError, MissingArtifact, StaleArtifact
from rerankdistill.index import seal
from rerankdistill.index.build import IndexCard, build_index, index_kind, open_index, options_of, plan_index, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.representations import count, dot, maxsim

NOT_SEALED = {artifacts.MANIFEST, seal.FILE, "write.lock"}


def test_results_are_ordered_by_score_then_doc_id_and_are_no_longer_than_the_depth(kind, world, build):
    name, kind_class = kind
    index = build(name, world.doc_ids, world.content(kind_class))
    for hits in index.search(world.queries(kind_class), 25):
        assert 0 < len(hits) <= 25
        assert hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))
        assert len({doc_id for doc_id, _ in hits}) == len(hits)
        assert all(isinstance(doc_id, str) and isinstance(score, float) for doc_id, score in hits)


def test_a_shallow_search_is_the_head_of_a_deep_one_however_ties_fall(kind, world, build):
    name, kind_class = kind
    index = build(name, world.doc_ids, world.content(kind_class))
    deep = index.search(world.queries(kind_class), 60)
    for depth in range(1, 40):
        for shallow, whole in zip(index.search(world.queries(kind_class), depth), deep, strict=True):
            assert [doc_id for doc_id, _ in shallow] == [doc_id for doc_id, _ in whole[:depth]]


def test_one_query_alone_gets_the_scores_it_gets_in_company(kind, world, build):
    name, kind_class = kind
    index = build(name, world.doc_ids, world.content(kind_class))
    queries = world.queries(kind_class)
    assert [index.search(queries[row : row + 1], 30)[0] for row in range(count(queries))] == index.search(queries, 30)


def test_odd_doc_ids_survive(kind, world, build):
    name, kind_class = kind
    index = build(name, world.doc_ids, world.content(kind_class))
    deep = index.search(world.content(kind_class)[:10], 400)
    for row, hits in enumerate(deep):
        assert world.doc_ids[row] in {doc_id for doc_id, _ in hits}
        assert {doc_id for doc_id, _ in hits} <= set(world.doc_ids)


def test_a_depth_beyond_the_collection_and_no_queries_at_all_are_no_errors(kind, world, build):
    name, kind_class = kind
    index = build(name, world.doc_ids[:5], world.content(kind_class)[:5])
    assert index.search(world.queries(kind_class)[:0], 10) == []
    assert all(len(hits) <= 5 for hits in index.search(world.queries(kind_class), 1000))


def test_bad_documents_are_refused_before_anything_is_written(kind, world, tmp_path):
    name, kind_class = kind
    content, inputs, card = world.content(kind_class), {"docs": "d", "encoder": "e"}, IndexCard(kind=name)
    for doc_ids, rows, message in (
        ([], 0, "no documents"),
        (["a", "b", "a"], 3, "'a'"),
        (["a", "", "c"], 3, "empty doc_id"),
        (["a", "b"], 3, "3 .* for 2"),
    ):
        with pytest.raises(DataError, match=message):
            build_index(tmp_path / "x", card, doc_ids, content[:rows], inputs, kind_class)
        assert list(tmp_path.iterdir()) == []


def test_a_mistaken_option_is_named_with_what_was_meant(kind, tmp_path):
    name, kind_class = kind
    with pytest.raises(CardError, match="unknown field"):
        options_of(IndexCard(kind=name, options={"no_such_option": 1}), kind_class)


def test_a_truncated_index_says_so_and_names_the_file(kind, world, build, tmp_path):
    name, kind_class = kind
    build(name, world.doc_ids, world.content(kind_class))
    folder = tmp_path / name
    for path in sorted(
        p for p in folder.rglob("*") if p.is_file() and p.name not in {artifacts.MANIFEST, "write.lock"}
    ):
        if name.startswith("lucene") and path.suffix not in {".arrow", ".json"} and "segments" not in path.name:
            continue  # Lucene reads its data lazily
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DamagedArtifact) as caught:
            open_index(folder, kind_class)
        assert str(folder) in str(caught.value)
        path.write_bytes(whole)
    open_index(folder, kind_class)


def test_one_changed_byte_is_noticed_before_anything_is_searched(kind, world, build, tmp_path):
    name, kind_class = kind
    build(name, world.doc_ids, world.content(kind_class))
    folder = tmp_path / name
    mapped = getattr(kind_class, "mapped", ())
    for path in (path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_SEALED):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        lazy = path.relative_to(folder).as_posix().startswith(mapped or "/")
        with pytest.raises(DamagedArtifact) as caught:
            seal.check(folder, mapped, thorough=True) if lazy else open_index(folder, kind_class)
        assert path.name in str(caught.value)
        path.write_bytes(whole)
    open_index(folder, kind_class)


LEAST = {"pq": 0.3, "ivfpq": 0.3, "ivf": 0.85, "sq8": 0.85, "residual": 0.85}
"""Of the ten nearest documents, the share that a kind finds of few and short random vectors, where every neighbour is
about as far as any other; a kind that is not named here, whoever writes it, finds 95 %."""


def test_it_finds_what_exact_search_finds(kind, world, build):
    name, kind_class = kind
    if kind_class.accepts == "texts":
        pytest.skip("words are held to their exact scores in test_lexical.py")
    content = world.content(kind_class)
    queries = content[:60]
    exact = maxsim(queries, content) if kind_class.accepts == "tokens" else dot(queries, content)
    found = build(name, world.doc_ids, content).search(queries, 10)
    shares = []
    for hits, scores in zip(found, exact, strict=True):
        cut = np.sort(scores)[-10] - 1e-3
        near = {doc_id for doc_id, score in zip(world.doc_ids, scores, strict=True) if score >= cut}
        shares.append(sum(doc_id in near for doc_id, _ in hits) / 10)
    assert np.mean(shares) >= LEAST.get(name, 0.95)


def test_an_index_is_not_searched_with_the_vectors_of_a_foreign_student(kind, world, build, tmp_path):
    name, kind_class = kind
    build(name, world.doc_ids, world.content(kind_class))
    open_index(tmp_path / name, kind_class, expect_encoder="e1")
    with pytest.raises(StaleArtifact, match=r"(?s)e1.*e2.*build the index again"):
        open_index(tmp_path / name, kind_class, expect_encoder="e2")


def test_the_manifest_says_what_is_inside(kind, world, build, tmp_path):
    name, kind_class = kind
    build(name, world.doc_ids, world.content(kind_class))
    found = artifacts.read(tmp_path / name, "index")
    assert found.counts["documents"] == 400
    assert found.counts["bytes"] > 1000
    assert found.inputs == {"docs": "d1", "encoder": "e1"}
    assert index_kind(tmp_path / name) == name
    with pytest.raises(MissingArtifact):
        index_kind(tmp_path / "nothing")


def test_the_fingerprint_knows_what_decides_an_index_and_ignores_the_rest():
    kind_class = open_kind("index", "bm25")
    card, inputs = IndexCard(kind="bm25"), {"docs": "d"}
    mark = plan_index(card, inputs, kind_class).fingerprint
    for same in ({"description": "other"}, {"options": {"k1": 0.9}}, {"expect": {"x": 1.0}}):
        assert plan_index(card.model_copy(update=same), inputs, kind_class).fingerprint == mark
    for other in ({"options": {"k1": 1.2}}, {"view": "text"}):
        assert plan_index(card.model_copy(update=other), inputs, kind_class).fingerprint != mark
    assert plan_index(card, {"docs": "d2"}, kind_class).fingerprint != mark


def test_every_shipped_card_opens_its_kind_and_its_options():
    cards = list_cards("indexes")
    assert {"bm25", "flat", "hnsw", "lucene"} <= set(cards)
    for name in cards:
        card = read_card(name)
        kind_class = open_kind("index", card.kind)
        options_of(card, kind_class)
        assert card.description
        assert all(math.isfinite(value) for value in card.expect.values())


def test_every_mistake_of_a_card_is_told_at_once(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('knd = "bm25"\nview = "titles"\ndescription = 3\n')
    with pytest.raises(CardError, match=r"(?s)4 mistakes.*did you mean 'kind'"):
        read_card(str(path))


def test_vectors_with_nan_name_the_first_document(tmp_path, world):
    for name in ("flat", "hnsw"):
        bad = world.vectors.copy()
        bad[[7, 9], 3] = np.nan
        with pytest.raises(DataError, match=r"line\\nbreak"):
            build_index(
                tmp_path / "x",
                IndexCard(kind=name),
                world.doc_ids,
                bad,
                {"docs": "", "encoder": ""},
                open_kind("index", name),
            )
        assert list(tmp_path.iterdir()) == []
