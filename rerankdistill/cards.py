"""Cards: declarative TOML read strictly. Every mistake of a card is reported at once, each with what was meant.

Shipped cards live in the project's top-level ``teachers/`` and ``indexes/`` (and pipelines in ``scripts/``); the wheel
carries copies of them under ``rerankdistill/shipped``. A user names a card by its name, or gives a path to their own.

A file may come in two forms: as it is, and small. Its table ``[small]`` says what is put over it then; see
:func:`merged`. Cards that it names by a path may lie beside it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rerankdistill.errors import CardError, UsageError

PACKAGE = Path(__file__).parent
SHELVES = {
    "teachers": "teachers",
    "indexes": "indexes",
    "pipelines": "scripts",
    "recipes": "scripts/recipes",
    "sweeps": "scripts/sweeps",
    "styles": "scripts/styles",
}
"""What a shelf of cards is called in the wheel, and its folder in a checkout."""
WITHIN = {"pipelines": "recipes"}
"""A shelf that also offers the cards of another, by ``recipes/NAME``."""
SMALL = "small"
"""The table of a file that says how its small form differs."""


class Card(BaseModel):
    """Base of every model of a card: unknown fields are errors, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


Model = TypeVar("Model", bound=BaseModel)


def shelf(room: str) -> Path:
    """The folder with the shipped cards of a room: in the wheel, or in the checkout for an editable install."""
    shipped = PACKAGE / "shipped" / room
    return shipped if shipped.is_dir() else PACKAGE.parent / SHELVES[room]


def list_cards(room: str) -> dict[str, Path]:
    """``{name: path}`` of the shipped cards, sorted; then those of the shelf within."""
    found = {path.stem: path for path in sorted(shelf(room).glob("*.toml"))}
    within = WITHIN.get(room)
    return found | ({f"{within}/{name}": path for name, path in list_cards(within).items()} if within else {})


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
    near = get_close_matches(name, known, 1) or [each for each in known if each.endswith(f"/{name}")]
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


def has_small(room: str, name: str) -> bool:
    """Whether a card has a small form."""
    return SMALL in read_toml(find_card(room, name))


def parse(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """Check a table against a model.

    Raises:
        CardError: lists every mistake, one a line, with the nearest known field for an unknown one.
    """
    if mistakes := _mistakes(model, data):
        raise CardError(_told(mistakes), where=where)
    return model.model_validate(data)


def parse_forms(
    model: type[Model],
    path: Path,
    small: bool,
    edit: Callable[[dict[str, Any]], None] = lambda _: None,
    refuse: Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]] = lambda *_: [],
) -> Model:
    """Read a file in one of its forms. Both are checked: a form that is not asked for is no place for a slip.

    Args:
        small: put the file's table ``[small]`` over it.
        edit: changes the table of the form that is asked for, in place, before it is checked.
        refuse: what is wrong with the table ``[small]`` itself, given the file's own and that.

    Raises:
        CardError: every mistake of both forms.
        UsageError: there is no small form.
    """
    table = beside(read_toml(path), path.parent)
    changes = table.pop(SMALL, None)
    if small and changes is None:
        fix = "leave out --small, or write that table"
        raise UsageError("there is no small form: the file has no table [small]", where=str(path), fix=fix)
    if changes is None:
        edit(table)
        return parse(model, table, str(path))
    if not isinstance(changes, dict):
        raise CardError(f"{SMALL}: must be a table", where=str(path))
    odd, full, short = refuse(table, changes), table, merged(table, changes)
    edit(short if small else full)
    mistakes = _mistakes(model, full)
    mistakes += [f"[{SMALL}] {each}" for each in (*odd, *_mistakes(model, short)) if each not in mistakes]
    if mistakes:
        raise CardError(_told(mistakes), where=str(path))
    return model.model_validate(short if small else full)


def beside(value: Any, folder: Path) -> Any:
    """A table in which every ``NAME.toml`` that lies beside the file, or below that, is found from anywhere."""
    if isinstance(value, dict):
        return {key: beside(each, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [beside(each, folder) for each in value]
    if isinstance(value, str) and value.endswith(".toml") and (folder / value).is_file():
        return str(folder / value)
    return value


def merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with changes put over it; neither is altered.

    A table over a table is merged key by key, and an empty one empties it. An array of tables over one is merged by
    position, and is as long as in ``changes``: what lies beyond is dropped. Anything else is replaced.
    """
    return {**deepcopy(dict(table)), **{key: _over(table.get(key), value) for key, value in changes.items()}}


def _over(old: Any, new: Any) -> Any:
    if isinstance(new, Mapping):
        return merged(old if isinstance(old, Mapping) and new else {}, new)
    if isinstance(new, list) and isinstance(old, list):
        places = [*old, *[None] * len(new)]
        return [_over(place, each) for place, each in zip(places, new, strict=False)]
    return new


def _told(mistakes: list[str]) -> str:
    head = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    return f"{head}\n" + "\n".join(f"  - {mistake}" for mistake in mistakes)


def _mistakes(model: type[BaseModel], data: Mapping[str, Any]) -> list[str]:
    try:
        model.model_validate(data)
    except ValidationError as error:
        return [_explain(fault, model) for fault in error.errors()]
    return []


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
