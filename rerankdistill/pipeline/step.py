"""A step of the way: what it makes, from what, and how; and the walk that runs those that are not fresh."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rerankdistill import artifacts, devices
from rerankdistill.artifacts import Manifest
from rerankdistill.errors import MissingArtifact, UsageError

Advance = Callable[[int], None]


class Notes(Protocol):
    """What a walk says while it goes; the command line draws it, a library caller may ignore it."""

    def skipped(self, step: Step) -> None: ...

    def started(self, step: Step, reason: str) -> None: ...

    def finished(self, step: Step, seconds: float) -> None: ...

    def bar(self, label: str, total: int) -> AbstractContextManager[Advance]: ...

    def say(self, text: str) -> None: ...


class Quiet:
    """Notes that nobody reads."""

    def skipped(self, step: Step) -> None: ...

    def started(self, step: Step, reason: str) -> None: ...

    def finished(self, step: Step, seconds: float) -> None: ...

    def say(self, text: str) -> None: ...

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        yield lambda _: None


@dataclass
class Step:
    """One product to be.

    Attributes:
        name: what a person reads: ``examples small``.
        folder: where the product goes.
        manifest: its fingerprint, known before anything runs, since it hangs on what goes in and not on what comes out.
        needs: the steps whose products it reads.
        run: fills an empty folder; may add to ``manifest.counts``. Set once the step is there for it to speak of.
        estimate: seconds it will take, where that can be told beforehand.
    """

    name: str
    folder: Path
    manifest: Manifest
    needs: tuple[Step, ...] = ()
    run: Callable[[Path], None] = field(default=lambda _: None)
    estimate: Callable[[], float | None] = field(default=lambda: None)
    lost: Callable[[], str | None] = field(default=lambda: None)
    """For a product that only points at data elsewhere: why it must be made again though its folder is fresh."""
    partial: Path | None = None
    """Where a killed run left what it had; cleared when the product is in its place, and not a moment before."""

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def require(self) -> Path:
        """The folder of a product that must be there and fresh."""
        artifacts.require(self.folder, self.manifest)
        return self.folder

    def reason(self) -> str | None:
        """Why the product must be made (again); None when it is fresh."""
        return artifacts.why_stale(self.folder, self.manifest) or self.lost()


@dataclass(frozen=True)
class Planned:
    """What a walk will do with a step: ``reason`` None means that it is fresh."""

    step: Step
    reason: str | None
    seconds: float | None


def in_order(wanted: Sequence[Step]) -> list[Step]:
    """The wanted steps and all they need, each once, needs first.

    Raises:
        UsageError: two different products want the same folder.
    """
    order: dict[Path, Step] = {}

    def visit(step: Step) -> None:
        if step.folder in order:
            if order[step.folder].fingerprint != step.fingerprint:
                raise UsageError(
                    f"two different products would be put into one folder ({step.name})",
                    where=str(step.folder),
                    fix="put one of the two into a pipeline file and --out of its own",
                )
            return
        for need in step.needs:
            visit(need)
        order[step.folder] = step

    for step in wanted:
        visit(step)
    return list(order.values())


def survey(wanted: Sequence[Step]) -> list[Planned]:
    """What a walk would do, without doing it."""
    plan = []
    for step in in_order(wanted):
        reason = step.reason()
        seconds = step.estimate() if reason else 0.0
        plan.append(Planned(step, reason, seconds if seconds is not None else _last_time(step)))
    return plan


def walk(wanted: Sequence[Step], notes: Notes) -> list[Step]:
    """Make the wanted products and all they need; those that are fresh are skipped. Returns the steps that ran."""
    ran = []
    for step in in_order(wanted):
        reason = step.reason()
        if reason is None:
            notes.skipped(step)
            continue
        if devices.rank():
            _follow(step)
            continue
        notes.started(step, reason)
        began = time.perf_counter()
        step.folder.parent.mkdir(parents=True, exist_ok=True)
        with artifacts.write(step.folder, step.manifest) as folder:
            step.run(folder)
        if step.partial:
            shutil.rmtree(step.partial, ignore_errors=True)
        ran.append(step)
        notes.finished(step, time.perf_counter() - began)
    return ran


TRAINED = "student"
"""The product that all processes of a ``torchrun`` make together; the first process alone makes the others."""


def _follow(step: Step) -> None:
    """What a process of ``torchrun`` that is not the first does with a step: take part in training, and wait until
    the first has put the product into its place."""
    if step.manifest.kind == TRAINED:
        with tempfile.TemporaryDirectory() as folder:
            step.run(Path(folder))
    while step.reason():
        time.sleep(0.5)


def _last_time(step: Step) -> float | None:
    """How long the step took when it was last made, whatever it was made from."""
    try:
        return artifacts.read(step.folder, step.manifest.kind).seconds
    except MissingArtifact:
        return None
