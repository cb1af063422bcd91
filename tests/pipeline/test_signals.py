"""What a teacher says beside a score must reach the loss that asks for it, and nobody must be asked for nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers_pipeline import card_of, evaluate, planned, train
from mini_pipeline import VOCABULARY, write_card
from tiny_models import tiny_t5

from rerankdistill.errors import CardError
from rerankdistill.examples.table import open_examples
from rerankdistill.pipeline.lessons import Lessons
from rerankdistill.pipeline.mining import read_candidates
from rerankdistill.pipeline.step import Quiet, walk
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.types import Answer, Scale, View

sys.path.insert(0, str(Path(__file__).parent.parent / "scores"))

from llm_tiny import save_llama

COMPARISONS = f"{__name__}:Comparisons"


class Comparer:
    """A kind of teacher that compares, and finds of two documents the one with the longer text better, by 9 to 1 in one
    order of asking and by 7 to 3 in the other."""

    details_are, keeps, unit = "preferences", ("details",), "list"
    needs_texts, scale, view, fingerprint = True, Scale.PROBABILITY, View.TITLE_TEXT, "comparer"

    @classmethod
    def open(cls, card, context):
        return cls()

    def judge(self, groups):
        found = []
        for group in groups:
            sizes = np.array([len(text) for text in group.texts])
            won = np.where(sizes[:, None] > sizes, 0.9, 0.3).astype(np.float32)
            np.fill_diagonal(won, np.nan)
            found.append(Answer(np.nanmean(won, 1).astype(np.float32), tuple(won)))
        return found


class Sayer(Comparer):
    """A kind of teacher that says yes or no."""

    details_are, unit, scale, fingerprint = "logits", "pair", Scale.LOGIT, "sayer"

    def judge(self, groups):
        rows = [np.array([[len(text), -1.0] for text in group.texts], np.float32) for group in groups]
        return [Answer(each[:, 0] - each[:, 1], tuple(each)) for each in rows]


class Seen:
    """A loss of the test's own, which looks at what reaches it."""

    batches: list = []  # noqa: RUF012
    eats: frozenset = frozenset()

    def __init__(self, **_):
        pass

    def __call__(self, scores):
        Seen.batches.append(scores)
        return scores.student.square().sum(), scores.student.new_tensor(float(scores.student.shape[0]))


class Comparisons(Seen):
    needs = frozenset({"student", "preferences"})


@pytest.fixture
def comparing(mini, teachers):
    write_card(teachers / "duel.toml", {"name": "duel", "kind": f"{__name__}:Comparer", "scale": "probability"})
    small = mini["students"]["small"]
    small.update(preferences=str(teachers / "duel.toml"), preference_depth=5, control="none")
    small["stages"][0].update(loss=f"kl_div + {COMPARISONS}", pick="top")
    small["stages"][0]["train"].update(steps=2, evaluate_every=2)
    mini["check"] = False
    return mini


def lessons_of(table, out):
    ws = Workspace(card_of(table), out)
    return Lessons(ws, "small", ws.card.students["small"])


def test_comparisons_of_one_teacher_and_scores_of_another_reach_a_loss_together(comparing, tmp_path):
    Seen.batches.clear()
    train(comparing, tmp_path / "out")
    lessons = lessons_of(comparing, tmp_path / "out")
    read = {doc.doc_id: doc.view(View.TITLE_TEXT) for doc in lessons.shelf.source.docs()}
    source = lessons.signals[0]
    short = read_candidates(source.asked_of)
    examples = open_examples(lessons.examples.require())
    dev = lessons._split()[1]
    assert dev
    assert not set(short) & {example.query_id for example in dev}, "comparisons of dev queries are paid for nothing"
    for example in examples:
        known = ~np.isnan(example.preferences)
        compared = {example.doc_ids[at] for at in np.flatnonzero(known.any(0))}
        assert compared == set(short.get(example.query_id, ())), "compared are the candidates of the short list alone"
        for i, j in zip(*np.nonzero(known), strict=True):
            longer = len(read[example.doc_ids[i]]) > len(read[example.doc_ids[j]])
            assert example.preferences[i, j] == pytest.approx(0.9 if longer else 0.3)
    for query_id, doc_ids in short.items():
        example = next(one for one in examples if one.query_id == query_id)
        labelled = {doc for doc, label in zip(example.doc_ids, example.labels, strict=True) if label > 0}
        assert labelled <= set(doc_ids)
        best = [example.doc_ids[at] for at in np.argsort(-example.scores, kind="stable")[:4]]
        assert set(best) <= set(doc_ids) | labelled
    assert len(Seen.batches) == 2
    for scores in Seen.batches:
        theirs = scores.preferences
        assert scores.scored.any()
        assert len(theirs.row) > 10
        assert scores.own[theirs.row, theirs.first].all()
        assert scores.own[theirs.row, theirs.second].all()
        distance = np.abs(theirs.probability.numpy()[:, None] - [0.8, 0.2, 0.5]).min(1)
        assert distance.max() < 1e-6, "(0.9 + 1 - 0.3) / 2, or a tie of lengths"


def test_who_needs_no_comparisons_pays_for_none_and_keeps_the_examples(comparing, mini, tmp_path):
    out = tmp_path / "out"
    names = planned(comparing, out, proof=False)
    assert any("duel" in name for name in names)
    plain = lessons_of(comparing, out)
    comparing["students"]["small"]["stages"][0]["loss"] = "kl_div"
    assert not any("duel" in name for name in planned(comparing, out, proof=False))
    assert lessons_of(comparing, out).examples.fingerprint != plain.examples.fingerprint
    assert lessons_of(comparing, out).examples.folder != plain.examples.folder, "two students would share one folder"


def test_a_loss_on_what_nobody_says_is_refused_before_anything_runs(comparing, teachers, tmp_path):
    comparing["students"]["small"]["preferences"] = ""
    with pytest.raises(CardError, match="comparisons of two documents"):
        planned(comparing, tmp_path / "out", proof=False)
    comparing["students"]["small"]["preferences"] = str(teachers / "bi.toml")
    with pytest.raises(CardError, match="gives none"):
        planned(comparing, tmp_path / "out", proof=False)


def test_a_teacher_that_compares_gives_its_own_comparisons(comparing, teachers, tmp_path):
    small = comparing["students"]["small"]
    small.update(preferences="", teacher=str(teachers / "duel.toml"))
    lessons = lessons_of(comparing, tmp_path / "out")
    assert lessons.signals[0].asked_of is lessons.candidates
    Seen.batches.clear()
    train(comparing, tmp_path / "out")
    first = Seen.batches[0]
    pairs = (first.own.sum(1) * (first.own.sum(1) - 1) / 2).sum()
    assert len(first.preferences.row) == int(pairs), "of the whole lists every two documents were compared"


def test_both_logits_arrive_as_no_and_yes(mini, teachers, tmp_path):
    write_card(teachers / "sayer.toml", {"name": "sayer", "kind": f"{__name__}:Sayer", "scale": "logit"})
    small = mini["students"]["small"]
    small.update(teacher=str(teachers / "sayer.toml"), control="none")
    small["stages"][0].update(loss="two_logit_mse", options={})
    lessons = lessons_of(mini, tmp_path / "out")
    walk([lessons.examples], Quiet())
    read = {doc.doc_id: doc.view(View.TITLE_TEXT) for doc in lessons.shelf.source.docs()}
    for example in open_examples(lessons.examples.require()):
        expected = [[-1.0, float(len(read[doc_id]))] for doc_id in example.doc_ids]
        assert example.logits.tolist() == expected
        np.testing.assert_allclose(example.scores, example.logits[:, 1] - example.logits[:, 0])
    small["teacher"] = ""
    with pytest.raises(CardError, match="both logits"):
        lessons_of(mini, tmp_path / "out").examples  # noqa: B018


def test_a_language_model_that_compares_teaches_beside_scores_up_to_the_report(mini, teachers, tmp_path):
    """Of random weights, and asked as a shipped card asks; the arm that is taught nonsense is trained as well."""
    asked = {"strategy": "sample", "opponents": 2, "answer": "Passage ", "choices": ["A", "B"]}
    card = {"name": "tiny-duel", "kind": "pairwise", "model": save_llama(tmp_path / "llama"), "scale": "probability",
            "dtype": "float32", "lengths": {"doc": 40}, "options": asked}  # fmt: skip
    write_card(teachers / "tiny-duel.toml", card)
    mini["students"]["small"].update(
        preferences=str(teachers / "tiny-duel.toml"), preference_depth=4, control="none", shuffled=["scores"]
    )
    stage = {"loss": "kl_div + pairwise_preference", "pick": "top"}
    mini["students"]["small"]["stages"][0].update(stage)
    mini["check"] = False
    _, (report,) = evaluate(mini, tmp_path / "out")
    assert "small" in {row["name"] for row in report["rows"]}
    for arm in ("small", "small.shuffled-scores"):
        (result,) = (tmp_path / "out").glob(f"students/{arm}-seed1/result.json")
        losses = [entry["loss"] for entry in json.loads(result.read_text())["history"] if "loss" in entry]
        assert np.isfinite(losses).all()


def test_both_logits_of_a_t5_teach_a_t5(mini, teachers, tmp_path):
    card = {"name": "mono", "kind": "seq2seq", "model": str(tiny_t5(tmp_path / "mono", VOCABULARY, seed=3)),
            "scale": "logprob", "dtype": "float32", "options": {"tokens": ["true", "false"]}}  # fmt: skip
    write_card(teachers / "mono.toml", card)
    small = mini["students"]["small"]
    small.update(kind="seq2seq", options={"init": str(tiny_t5(tmp_path / "small", VOCABULARY, seed=4, layers=1))})
    small.update(teacher=str(teachers / "mono.toml"), control="none")
    small["stages"][0].update(loss="two_logit_mse", options={})
    small["stages"][0]["train"].update(steps=20, learning_rate=1e-2)
    mini["check"] = False
    train(mini, tmp_path / "out")
    (result,) = (tmp_path / "out").glob("students/small-seed1/result.json")
    losses = [entry["loss"] for entry in json.loads(result.read_text())["history"] if "loss" in entry]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3]), losses
