"""What a walk looks like on a terminal: a line a step, a bar with the time left for what takes long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rerankdistill.pipeline.step import Advance, Step

EVERY = 15.0
"""Seconds between lines where the output is no terminal."""

NARROW = 132
"""Characters that a report needs."""


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def wide_console() -> Console:
    """Stdout, never so narrow that a table's numbers are cut."""
    console = Console(highlight=False)
    return console if console.width >= NARROW else Console(highlight=False, width=NARROW)


class Terminal:
    """:class:`rerankdistill.pipeline.step.Notes` on stderr."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def skipped(self, step: Step) -> None:
        self.console.print(f"[dim]fresh   {escape(step.name)}[/dim]")

    def started(self, step: Step, reason: str) -> None:
        self.console.print(f"[bold]run[/bold]     {escape(step.name)} [dim]({escape(reason)})[/dim]")

    def finished(self, step: Step, seconds: float) -> None:
        counts = {key: value for key, value in step.manifest.counts.items() if isinstance(value, int | float | str)}
        figures = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in counts.items()
        )
        told = f" [dim]{escape(figures)}[/dim]" if figures else ""
        self.console.print(f"[green]done[/green]    {escape(step.name)} in {duration(seconds)}{told}")

    def say(self, text: str) -> None:
        self.console.print(escape(text))

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        if self.console.is_terminal:
            yield from self._drawn(label, total)
        else:
            yield from self._lines(label, total)

    def _drawn(self, label: str, total: int) -> Iterator[Advance]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("        {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(escape(label), total=total)
            yield lambda done: progress.advance(task, done)

    def _lines(self, label: str, total: int) -> Iterator[Advance]:
        began = told = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, told
            done += count
            now = time.monotonic()
            if now - told >= EVERY and done:
                told = now
                left = (now - began) * max(total - done, 0) / done
                self.console.print(f"        {escape(label)}: {done:,} of {total:,}, about {duration(left)} left")

        yield advance
