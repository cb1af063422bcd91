"""Training: each stage of each arm is a step; arms share the stages in which they do not differ."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rerankdistill import artifacts, devices
from rerankdistill.errors import CardError, UsageError
from rerankdistill.examples.rescale import check_scale
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import Weighted, parse
from rerankdistill.pipeline.card import StageCard, StudentCard
from rerankdistill.pipeline.chain import Graduate, School, check_chain
from rerankdistill.pipeline.checking import check_step, hold
from rerankdistill.pipeline.dev import DevRanking
from rerankdistill.pipeline.encoded import EncodedModel, is_encoded
from rerankdistill.pipeline.inside import check_inside
from rerankdistill.pipeline.lessons import Lessons
from rerankdistill.pipeline.matching import projecting
from rerankdistill.pipeline.rounds import Round, control_rounds, require_miner
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.vectors import Model, by_id, read_vectors
from rerankdistill.pipeline.workspace import Workspace, kind_options
from rerankdistill.students.model_card import write_card
from rerankdistill.students.train import TrainResult, train

NO_RESULT: dict[str, Any] = {
    "train": {"kept_tokens", "compile"},
    "remine": True,
    "remine_depth": True,
    "remine_keep": True,
}
"""Of a stage: what decides memory and speed alone, and no student is trained again for; and what decides only which
candidates it learns from, which their own fingerprint tells."""
DISTILLED, CONTROL, WARM, SHUFFLED = "student", "control", "control-warm", "shuffled-"
BEST, RESULT = "best", "result.json"
"""In a tuning: the best trial's student; in a student: what happened in its training."""


@dataclass(frozen=True)
class Arm:
    """One way of training a student with one seed. ``role`` is ``student``, ``control``, ``control-warm``,
    ``shuffled-…`` or the name of a control that the card adds."""

    student: str
    role: str
    seed: int
    stages: tuple[StageCard, ...]

    @property
    def name(self) -> str:
        return self.student if self.role == DISTILLED else f"{self.student}.{self.role}"


def arms(name: str, card: StudentCard, seeds: tuple[int, ...]) -> list[Arm]:
    """Every arm of a student, with every seed."""
    ways = {DISTILLED: card.stages}
    matched = [stage for stage in card.stages if stage.match]
    if card.control == "auto":
        ways[CONTROL] = control_rounds(card.stages, labels_only)
    elif card.control != "none":
        ways[CONTROL] = card.control
    if card.control != "none" and card.warm_control and matched:
        ways[WARM] = tuple(stage if stage.match else labels_only(stage) for stage in card.stages)
    ways |= card.extra_controls
    ways |= {SHUFFLED + what: card.stages for what in card.shuffled}
    return [Arm(name, role, seed, stages) for role, stages in ways.items() for seed in seeds]


def is_shuffled(arm: Arm, stage: StageCard) -> bool:
    """Whether what the teacher says in a stage reaches this arm shuffled."""
    return arm.role == f"{SHUFFLED}teacher" or (arm.role.startswith(SHUFFLED) and not stage.match)


def hears_relabelled(arm: Arm) -> bool:
    """Whether an arm learns from positives that the teacher chose. A control keeps the labels as they are, and so does
    one that is taught nonsense: the teacher's choice would be sense."""
    return arm.role not in (CONTROL, WARM) and not arm.role.startswith(SHUFFLED)


def labels_only(stage: StageCard, steps: int | None = None) -> StageCard:
    """The same stage without a teacher: InfoNCE on the labels, everything else alike but, where given, the steps."""
    tune = {key: values for key, values in stage.tune.items() if "." not in key or key.startswith("infonce.")}
    options = {"infonce": stage.options.get("infonce", {})}
    schedule = stage.train.model_copy(update={"steps": steps}) if steps else stage.train
    labels = {"loss": "infonce", "options": options, "tune": tune, "live": False, "train": schedule, "paced": None}
    return stage.model_copy(update=labels)


def student_step(ws: Workspace, lessons: Lessons, arm: Arm) -> Step:
    """The step that makes an arm's student, with the steps of all its stages before it."""
    step = _until(ws, lessons, arm, len(arm.stages))
    if step is None:
        raise CardError("a student needs a stage", where=f"students.{arm.student}")
    return step


def _until(ws: Workspace, lessons: Lessons, arm: Arm, end: int) -> Step | None:
    """The step of the last of an arm's first ``end`` stages."""
    step: Step | None = None
    for number in range(end):
        step = _stage(ws, lessons, arm, number, step)
    return step


def school(ws: Workspace, lessons: Mapping[str, Lessons]) -> School:
    """Where the students of a pipeline are trained that teach others.

    Raises CardError: one is not there, or is taught by itself in the end.
    """
    check_chain(ws.card)

    def train_one(name: str, seed: int) -> Graduate:
        own = lessons[name]
        step = student_step(ws, own, arms(name, own.student, (seed,))[0])
        vectors = open_kind("students", own.student.kind).layout == "batch"
        return Graduate(step, model_of(step.folder.name, step, own.student, own.docs_model) if vectors else None)

    return School(train_one)


def model_of(name: str, step: Step, card: StudentCard, docs: Model | None = None) -> Model:
    """A trained student as a model that later steps encode with; ``docs`` as :attr:`Lessons.docs_model`."""
    options = kind_options("students", card.kind, card.options, "student")
    mark = artifacts.fingerprint("trained", step.fingerprint)
    about = (name, str(step.folder), mark, options.query_tokens, options.doc_tokens, (step,))
    return EncodedModel(*about, card=card) if is_encoded(card) else Model(*about, docs)


def student_options(name: str, card: StudentCard) -> Any:
    """The options of a student's kind, checked."""
    return kind_options("students", card.kind, card.options, f"students.{name}.options")


def build_loss(stage: StageCard) -> Weighted:
    return parse(stage.loss, stage.options, lambda name: open_kind("losses", name), stage.paced)


def reads_scores(stage: StageCard) -> bool:
    """Whether a stage learns from its teacher's scores."""
    return not stage.match and "teacher" in build_loss(stage).needs


def _check(ws: Workspace, lessons: Lessons, stage: StageCard, initial: str, relabelled: bool) -> tuple[Step, ...]:
    """The check of the student's teacher, which comes before any stage that hears the teacher: in scores, in vectors or
    in the positives that it chose."""
    chooses = lessons.student.relabel != "none"
    taught = next((each for each in lessons.student.stages if reads_scores(each) or (chooses and not each.match)), None)
    hears = bool(stage.match) or reads_scores(stage) or (chooses and relabelled)
    if taught is None or not ws.card.check.run or not hears:
        return ()
    options = student_options(lessons.name, lessons.student)
    own: list[Any] = [getattr(term.loss, "options", None) for term in build_loss(taught).terms]
    taus = [float(each.tau_teacher) for each in own if hasattr(each, "tau_teacher")]
    return (check_step(ws, lessons.of(taught), taus[0] if taus else None, options, initial),)


def _own(ws: Workspace, lessons: Lessons, arm: Arm, number: int, before: Step | None) -> Lessons:
    """The lessons of a stage: of its queries, and on candidates that the student mined where the stage says so."""
    stage, card = arm.stages[number], lessons.student
    own = lessons.of(stage)
    if not stage.remine or before is None:
        return own
    require_miner(card, f"students.{arm.student}")
    label = f"{arm.name}-round{number + 1}-seed{arm.seed}"
    model = model_of(label, before, card, own.docs_model)
    return own.remined(Round(label, model, stage.remine_depth or ws.card.mine.depth, stage.remine_keep))


def _stage(ws: Workspace, lessons: Lessons, arm: Arm, number: int, before: Step | None) -> Step:
    taught = lessons.at(arm.seed)
    lessons = taught if hears_relabelled(arm) else taught.as_labelled
    stage, card = arm.stages[number], lessons.student
    own = _own(ws, lessons, arm, number, before)
    last = number == len(arm.stages) - 1
    shuffled = is_shuffled(arm, stage)
    loss = build_loss(stage)
    if not stage.match and "teacher" in loss.needs:
        check_scale(loss.eats, lessons.scale, stage.loss)
    if stage.match and stage.tune:
        fix = "leave out tune, or tune the stage after it"
        raise CardError("a stage that matches vectors is not measured on dev", where=f"students.{arm.student}", fix=fix)
    _refuse_what_cannot_be_learnt(lessons, arm, stage, loss)
    material = own.material(stage)
    made_from = own.mark(stage)
    tuning = _tuning(ws, taught, arm, number) if stage.tune else None
    options = student_options(arm.student, card)
    kind = open_kind("students", card.kind)
    inputs = {"material": made_from, "initial model": kind.source_fingerprint(options)}
    checks = _check(ws, taught, stage, inputs["initial model"], hears_relabelled(arm))
    if shuffled:
        inputs["scores"] = "shuffled"
    if lessons.docs_model:
        inputs[artifacts.READER] = lessons.docs_model.mark
    if before:
        inputs["stage before"] = before.fingerprint
    if tuning:
        inputs["tuning"] = tuning.fingerprint
    about = {"student": {"kind": card.kind, **options.model_dump(mode="json")},
             "stage": stage.model_dump(mode="json", exclude={"tune": True, **NO_RESULT})}  # fmt: skip
    manifest = artifacts.plan("student", 1, about, inputs, arm.seed)
    if last:
        place, label = ws.root / "students" / f"{arm.name}-seed{arm.seed}", f"student {arm.name} (seed {arm.seed})"
    else:
        place = ws.root / "stages" / manifest.fingerprint  # students that begin alike share it
        label = f"stage {number + 1} of {arm.name} (seed {arm.seed})"
    dev = () if stage.match else (lessons.examples,)
    vectors = (*lessons.doc_vectors, *own.doc_vectors)
    needs = (*material, *dev, *checks, *vectors, *(step for step in (before, tuning) if step))
    step = Step(label, place, manifest, needs, partial=ws.root / "partial" / manifest.fingerprint)

    def run(folder: Path) -> None:
        for check in checks:
            hold(check, ws.card.check.force, ws.notes)
        chosen = apply_choice(stage, json.loads((tuning.require() / "choice.json").read_text())) if tuning else stage
        if tuning and arm.seed == ws.card.seeds[0]:  # the best trial is this very training
            shutil.copytree(tuning.folder / BEST, folder, dirs_exist_ok=True)
            result = TrainResult(**json.loads((folder / RESULT).read_text("utf-8")))
        else:
            result = _fit(ws, lessons, own, arm, chosen, before, step.fingerprint, folder, label)
        manifest.counts = {"steps": result.steps, "dev ndcg@10": result.best}
        facts = {**about, "stage": chosen.model_dump(mode="json")}
        (folder / "training.json").write_text(json.dumps(facts, indent=1), "utf-8")
        if last:
            taught = {"collection": ws.card.collection, "queries": lessons.lane.name, "teacher": lessons.faculty.name}
            write_card(folder, arm.name, card.kind, {**taught, "seed": arm.seed, "dev ndcg@10": result.best, **facts})

    step.run = run
    return step


def _refuse_what_cannot_be_learnt(lessons: Lessons, arm: Arm, stage: StageCard, loss: Weighted) -> None:
    """Raise CardError where an arm would be trained on nothing, or on what its student does not read."""
    where, own = f"students.{arm.student} ({arm.role})", lessons.of(stage)
    check_inside(stage, lessons.student.kind, where)
    if stage.match and own.docs_model is not None:
        what = "a query tower learns from ranked lists; vectors are matched by a student that reads documents too"
        raise CardError(what, where=where, fix="leave the stage with match out, or take kind = 'bi_encoder'")
    if stage.match and stage.level == "text" and not hasattr(open_kind("students", lessons.student.kind), "vectors"):
        what = f"a student of kind {lessons.student.kind!r} has no vector of a text that could match a teacher's"
        raise CardError(what, where=where, fix="leave the stage with match out, or take kind = 'bi_encoder'")
    if "positive" in loss.needs and set(own.lane.sets) == {"asked"} and not lessons.student.pseudo_positive:
        what = f"{stage.loss} needs a positive, and queries without judgements have none"
        fix = "set pseudo_positive = true: the teacher's first document; or control = 'none'"
        raise CardError(what, where=where, fix=fix)


def _fit(
    ws: Workspace,
    lessons: Lessons,
    own: Lessons,
    arm: Arm,
    stage: StageCard,
    before: Step | None,
    mark: str,
    folder: Path,
    label: str,
) -> TrainResult:
    """Train through one stage, resuming where a killed run stopped, and save the student and what happened.

    Args:
        own: the lessons of the stage; ``lessons``, those of the student, have its dev queries.
    """
    import torch

    torch.manual_seed(arm.seed)
    options = student_options(arm.student, lessons.student)
    kind = open_kind("students", lessons.student.kind)
    device = ws.card.device
    student = kind.open(before.require(), options, device) if before else kind.create(options, device)
    student.training_tokens = stage.tokens
    for vectors in own.doc_vectors:
        student.documents = by_id(vectors)
        if hasattr(student, "start"):
            student.start(read_vectors(vectors)[1])
    data = own.data(stage, is_shuffled(arm, stage), arm.seed, student.layout)
    dev: DevRanking | None = None if stage.match else lessons.dev()
    checkpoints = ws.root / "partial" / mark
    with ws.notes.bar(label, stage.train.steps) as advance:
        done = 0

        def report(step: int, total: int, latest: Mapping[str, float]) -> None:  # noqa: ARG001
            nonlocal done
            advance(step - done)
            done = step

        loss = build_loss(stage)
        with projecting(student, data, stage, loss):
            result = train(student, data, loss, stage.train, checkpoints, arm.seed, dev, report)
    student.save(folder)
    (folder / RESULT).write_text(json.dumps(asdict(result), indent=1), "utf-8")
    return result


def _tuning(ws: Workspace, lessons: Lessons, arm: Arm, number: int) -> Step:
    """The step that tries every combination of a stage's ``tune`` on dev, with the pipeline's first seed."""
    stage, seed = arm.stages[number], ws.card.seeds[0]
    taught = lessons.at(seed)
    lessons = taught if hears_relabelled(arm) else taught.as_labelled
    before = _until(ws, taught, replace(arm, seed=seed), number)
    own = _own(ws, lessons, replace(arm, seed=seed), number, before)
    shuffled = is_shuffled(arm, stage)
    material = own.material(stage)
    options = student_options(arm.student, lessons.student)
    kind = open_kind("students", lessons.student.kind)
    inputs = {
        "material": own.mark(stage),
        "student": artifacts.fingerprint(lessons.student.kind, options.model_dump(mode="json")),
        "initial model": kind.source_fingerprint(options),
        "scores": "shuffled" if shuffled else "as they are",
    }
    checks = _check(ws, taught, stage, inputs["initial model"], hears_relabelled(arm))
    needs: tuple[Step, ...] = (*material, lessons.examples, *checks)
    needs = (*needs, *lessons.doc_vectors, *own.doc_vectors)
    if before:
        inputs["stage before"], needs = before.fingerprint, (*needs, before)
    manifest = artifacts.plan("tuning", 1, {"stage": stage.model_dump(mode="json", exclude=NO_RESULT)}, inputs, seed)
    place = ws.root / "tuning" / f"{arm.name}-{number + 1}"
    partial = ws.root / "partial" / f"tuning-{manifest.fingerprint}"
    step = Step(f"tuning of {arm.name}", place, manifest, needs, partial=partial)

    def trial(at: int, choice: dict[str, Any]) -> dict[str, Any]:
        """One training; it is kept whole, so that a killed tuning repeats none and the best is not trained again."""
        done = partial / str(at)
        if not done.exists():
            label = f"{arm.name} trying {', '.join(f'{name} {value}' for name, value in choice.items())}"
            staging = partial / f"{at}.part"
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            mark = f"{partial.name}/{at}.checkpoints"
            chosen = apply_choice(stage, choice)
            _fit(ws, lessons, own, replace(arm, seed=seed), chosen, before, mark, staging, label)
            staging.rename(done)
        return {"choice": choice, "dev ndcg@10": json.loads((done / RESULT).read_text("utf-8"))["best"]}

    def run(folder: Path) -> None:
        for check in checks:
            hold(check, ws.card.check.force, ws.notes)
        if devices.world() > 1:
            fix = "run the same command without torchrun until the tuning is done, then with it"
            raise UsageError("a tuning runs in one process", where=step.name, fix=fix)
        if lessons.dev() is None:
            fix = "leave out tune, or set dev_share"
            raise CardError("there is no dev query to choose by", where=f"students.{arm.student}", fix=fix)
        found = [trial(at, choice) for at, choice in enumerate(combinations(stage))]
        best = max(range(len(found)), key=lambda at: found[at]["dev ndcg@10"])
        shutil.copytree(partial / str(best), folder / BEST)
        (folder / "choice.json").write_text(json.dumps(found[best]["choice"], indent=1), "utf-8")
        (folder / "trials.json").write_text(json.dumps(found, indent=1), "utf-8")
        manifest.counts = {"trials": len(found), **found[best]}

    step.run = run
    return step


def combinations(stage: StageCard) -> list[dict[str, Any]]:
    """Every combination of the values that a stage wants to try."""
    return [dict(zip(stage.tune, values, strict=True)) for values in itertools.product(*stage.tune.values())]


def apply_choice(stage: StageCard, choice: Mapping[str, Any]) -> StageCard:
    """The stage with chosen values in place: ``kl_div.tau_student`` is an option of a loss, ``list_size`` one of the
    stage, any other name one of its training."""
    options = {name: dict(values) for name, values in stage.options.items()}
    fields: dict[str, Any] = {}
    for name, value in choice.items():
        loss, dot, option = name.partition(".")
        if dot:
            options.setdefault(loss, {})[option] = value
        elif name in StageCard.model_fields:
            fields[name] = value
        else:
            fields["train"] = {**stage.train.model_dump(), **fields.get("train", {}), name: value}
    return StageCard.model_validate({**stage.model_dump(), **fields, "options": options})
