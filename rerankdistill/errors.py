"""The one family of errors. Each says what is wrong, where, and what to do about it.

::

    RerankDistillError            1
    ├── UsageError                2   the command or its arguments
    ├── MissingDependency         3   an extra, a Java or a GPU that this machine lacks
    ├── ArtifactError             4   something on disk that a step needs
    │   ├── MissingArtifact           not there
    │   ├── StaleArtifact             there, but made from something else
    │   └── DamagedArtifact           there, but cannot be read
    ├── BadInput                  5   what the user gave us
    │   ├── CardError                 a TOML card or pipeline
    │   ├── DataError                 a collection, run, qrels or scores file
    │   └── ScaleError                teacher scores that a loss cannot eat
    └── ExpectationNotMet         6   a measured figure fell short of what was asked for

The number is the exit code of the command line. :class:`RerankDistillWarning` is for input that is odd but usable.
"""

from __future__ import annotations


class RerankDistillError(Exception):
    """Base of every error raised on purpose.

    Args:
        what: what is wrong, as one sentence without a full stop.
        where: the file, line, field or step in which it was found.
        fix: what the user can do about it, best as a command.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f"\n  → {self.fix}" if self.fix else ""
        return f"{place}{self.what}{remedy}"


class UsageError(RerankDistillError):
    exit_code = 2


class MissingDependency(RerankDistillError):
    exit_code = 3


class ArtifactError(RerankDistillError):
    exit_code = 4


class MissingArtifact(ArtifactError):
    pass


class StaleArtifact(ArtifactError):
    pass


class DamagedArtifact(ArtifactError):
    pass


class BadInput(RerankDistillError):
    exit_code = 5


class CardError(BadInput):
    pass


class DataError(BadInput):
    pass


class ScaleError(BadInput):
    pass


class ExpectationNotMet(RerankDistillError):
    exit_code = 6


class RerankDistillWarning(UserWarning):
    """Odd input that was used all the same; the message says how."""
