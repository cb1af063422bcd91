"""Cards: declarative TOML read strictly. Every mistake of a card is reported at once, each with what was meant.

Shipped cards live in the project's top-level ``teachers/`` and ``indexes/`` (and pipelines in ``scripts/``); the wheel
carries copies of them under ``rerankdistill/shipped``. A user names a card by its name, or gives a path to their own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rerankdistill.errors import CardError

PACKAGE = Path(__file__).parent
SHELVES = {"teachers": "teachers", "indexes": "indexes", "pipelines": "scripts", "sweeps": "scripts/sweeps"}
"""What a shelf of cards is called in the wheel, and its folder in a checkout."""


class Card(BaseModel):
    """Base of every model of a card: unknown fields are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


Model = TypeVar("Model", bound=BaseModel)


def shelf(room: str) -> Path:
    """The folder with the shipped cards of a room: in the wheel, or in the checkout for an editable install."""
    shipped = PACKAGE / "shipped" / room
    return shipped if shipped.is_dir() else PACKAGE.parent / SHELVES[room]


def list_cards(room: str) -> dict[str, Path]:
    """``{name: path}`` of the shipped cards, sorted."""
    return {path.stem: path for path in sorted(shelf(room).glob("*.toml"))}


def find_card(room: str, name: str) -> Path:
    """The path of a card by its name, or a path as given.

    Raises:
        CardError: neither a shipped card nor a file.
    """
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return path
    known = list_cards(room)
    if name in known:
        return known[name]
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped: {', '.join(known)}"
    raise CardError(f"no {room} card and no file is called {name!r}", fix=f"{hint}; or give the path of a .toml file")


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        CardError: missing, not UTF-8, or not TOML; says the line.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CardError("no such file", where=str(path)) from error
    except OSError as error:
        raise CardError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise CardError(f"not UTF-8 (byte {error.start})", where=str(path), fix="save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"not valid TOML: {error}", where=str(path)) from error


def parse(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """Check a table against a model.

    Raises:
        CardError: lists every mistake, one a line, with the nearest known field for an unknown one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        mistakes = [_explain(fault, model) for fault in error.errors()]
    head = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    raise CardError(f"{head}\n" + "\n".join(f"  - {mistake}" for mistake in mistakes), where=where)


def _explain(fault: Any, model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        name = str(fault["loc"][-1])
        near = get_close_matches(name, list(_fields(model)), 1)
        return f"{place}: unknown field" + (f"; did you mean {near[0]!r}?" if near else "")
    if fault["type"] == "missing":
        return f"{place}: missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" + (f" (got {fault['input']!r})" if not isinstance(fault["input"], dict) else "")


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """The names of a model's fields and of the models inside it."""
    for name, info in model.model_fields.items():
        yield name
        for part in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _fields(part)
