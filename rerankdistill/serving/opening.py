"""From folders to models: which of a pipeline's students to serve, and how each is opened."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill import artifacts, devices
from rerankdistill.contracts import Role
from rerankdistill.encoding import load_bi_encoder, model_fingerprint, tokenise, towers
from rerankdistill.errors import DataError, MissingArtifact, RerankDistillError, UsageError
from rerankdistill.kinds import open_kind
from rerankdistill.serving.batcher import Network
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.model import Embedder, Models, Reranker
from rerankdistill.serving.session_network import COURSE, fastest
from rerankdistill.serving.settings import Settings
from rerankdistill.serving.torch_network import PROBES, called, scores_of, vectors_of
from rerankdistill.serving.watching import Signature, lines
from rerankdistill.students.folder import Folder
from rerankdistill.students.folder import look as look_inside

NOT_TO_SERVE = ("control", "shuffled", "before")
"""What stands in the names of students that are there to be compared with."""


def load_models(settings: Settings) -> Models:
    """Open what a server shall answer with.

    Raises:
        MissingArtifact: there is no student.
        UsageError: it is not clear which one is meant, or its kind cannot be served.
    """
    embedder, reranker = find(settings.place.expanduser(), settings.student)
    device, cores = devices.choose(settings.device, settings.dtype), settings.cores
    return devices.apart(
        lambda: Models(
            open_embedder(embedder, device, cores) if embedder else None,
            open_reranker(reranker, device, cores) if reranker else None,
        )
    )


class Students:
    """The served students, as :class:`rerankdistill.serving.watching.Watched`."""

    what = "student"

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine, self._settings = engine, settings

    def signature(self) -> Signature:
        try:
            folders = [place.path for place in find(self._settings.place.expanduser(), self._settings.student) if place]
            return tuple(line for folder in folders for line in lines(sorted(folder.rglob("*"))))
        except (RerankDistillError, OSError):
            return ()

    def open(self) -> Models | None:
        models = load_models(self._settings)
        if models.mark == self._engine.models.mark:
            return None
        attempt(models)
        return models

    def take(self, opened: Models) -> dict[str, str]:
        self._engine.models = opened  # what is under way ends with the models that it began with
        return {"model": opened.name, "fingerprint": opened.fingerprint}


def attempt(models: Models) -> None:
    """Let new models read something, in this thread.

    Raises:
        DataError: what they say is not finite.
    """
    found = []
    if models.embedder:
        for role in models.embedder.networks:
            found.append(models.embedder.networks[role](models.embedder.tokens(["a text", "another one"], role), 1))
    if models.reranker:
        found.append(models.reranker.network(models.reranker.tokens("a query", ["a text", "another one"]), 1))
    if not all(np.isfinite(each).all() for each in found):
        raise DataError("what the student says is not a number", fix="train or publish it again")


def find(place: Path, student: str = "") -> tuple[Folder | None, Folder | None]:
    """The bi-encoder and the cross-encoder to serve: a student's own folder, or those of a pipeline's folder."""
    found = [look(place)] if is_model(place) else [look(each) for each in candidates(place, student)]
    embedders, rerankers = ([each for each in found if each.kind == kind] for kind in ("bi_encoder", "cross_encoder"))
    if not embedders and not rerankers:
        kinds = ", ".join(f"{each.name} is a {each.kind}" for each in found)
        raise UsageError(
            f"no student here can be served: {kinds}", where=str(place), fix="serve a bi- or cross-encoder"
        )
    for each in (embedders, rerankers):
        if len({one.name.rpartition("-seed")[0] or one.name for one in each}) > 1:
            names = ", ".join(one.name for one in each)
            raise UsageError(f"there are several: {names}", where=str(place), fix="choose with --student NAME")
    return next(iter(embedders), None), next(iter(rerankers), None)


def put_back(place: Path) -> None:
    """Before a server starts: put back what a killed writer had moved aside, where nothing came in its place. While it
    runs it touches no file: what seems to be left over may be that of a writer in another container."""
    moved = place.glob("students/.*.old")
    for folder in (place, *{path.with_name(path.name[1:].rsplit(".", 2)[0]) for path in moved}):
        if not folder.exists():
            with suppress(OSError):  # a disk that may not be written to
                artifacts.sweep(folder)


def candidates(place: Path, student: str) -> list[Path]:
    """The students in a pipeline's folder that are not there to be compared with, the first seed first."""
    folders = sorted(path for path in (place / "students").glob("*") if not path.name.startswith("."))
    folders = [path for path in folders if is_model(path)]
    if student:
        named = [path for path in folders if student in (path.name, path.name.rpartition("-seed")[0])]
        if not named:
            known = ", ".join(path.name for path in folders) or "none"
            raise UsageError(f"there is no student {student!r}", where=str(place), fix=f"known: {known}")
        return named
    chosen = [path for path in folders if not any(word in path.name for word in NOT_TO_SERVE)]
    if not chosen:
        fix = "give a student's folder, or the --out of rerankdistill train or adapt"
        raise MissingArtifact("there is no student here", where=str(place), fix=fix)
    return chosen


def is_model(folder: Path) -> bool:
    return (folder / "modules.json").is_file() or (folder / "config.json").is_file()


def look(folder: Path) -> Folder:
    """What kind of model a folder holds: by its manifest, else by the libraries' own files."""
    found = look_inside(folder)
    return found._replace(kind="bi_encoder") if found.kind == "query_tower" else found


def open_embedder(place: Folder, device: devices.Device, cores: int = 0) -> Embedder:
    """A bi-encoder: with torch, or in the form that is faster here.

    Args:
        cores: that it may take; 0: as many as torch does in this thread.
    """
    model = owned(load_bi_encoder(str(place.path)).eval())
    roles: dict[Role, Any] = towers(model)
    wanted = {"query": place.options.get("query_tokens"), "doc": place.options.get("doc_tokens")}
    limits = {role: int(tower.max_seq_length or 512) for role, tower in roles.items()}
    unit = model.similarity_fn_name == "cosine"
    most = {role: min(limits[role], wanted[role] or limits[role]) for role in roles}

    def network(role: Role) -> Network:
        return vectors_of(roles[role], device, unit, tokenise(roles[role].tokenizer, PROBES, most[role]))

    shared = network("doc")
    backend = called(device)
    if roles["query"] is roles["doc"]:
        course = tokenise(roles["doc"].tokenizer, COURSE, most["doc"])
        backend, shared = fastest(place.path, device, shared, course, cores)
    return Embedder(
        place.name,
        model_fingerprint(str(place.path)),
        int(roles["doc"].get_embedding_dimension()),
        most,
        {role: tower.tokenizer for role, tower in roles.items()},
        {"doc": shared, "query": shared if roles["query"] is roles["doc"] else network("query")},
        {"query": model.prompts.get("query") or "", "doc": model.prompts.get("document") or ""},
        unit,
        backend,
    )


def open_reranker(place: Folder, device: devices.Device, cores: int = 0) -> Reranker:
    """A cross-encoder: with torch, or in the form that is faster here; ``cores`` as in :func:`open_embedder`."""
    kind = open_kind("students", "cross_encoder")
    options = kind.Options(init=str(place.path), max_tokens=place.options.get("max_tokens") or 512)
    network = owned(kind.open(place.path, options, device.name).network.eval())
    limit = int(network.max_seq_length or network.tokenizer.model_max_length)
    most = min(options.max_tokens, limit)
    probes = tokenise(network.tokenizer, [PROBES[1]] * len(PROBES), most, PROBES)
    course = tokenise(network.tokenizer, [COURSE[0]] * len(COURSE), most, COURSE)
    backend, run = fastest(place.path, device, scores_of(network.model, device, probes), course, cores)
    return Reranker(
        place.name,
        model_fingerprint(str(place.path)),
        most,
        network.tokenizer,
        run,
        backend,
    )


def owned(model: Any) -> Any:
    """The model with its weights in memory of its own: a file that is written over must not change them."""
    for weight in [*model.parameters(), *model.buffers()]:
        weight.data = weight.data.clone()
    return model
