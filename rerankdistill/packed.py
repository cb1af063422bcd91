"""Where a language model's files are. A gguf file is unpacked once into a folder that any library reads.

Reading a gguf file takes long (every tensor is dequantised) and what comes out cannot be saved as it is, so its weights
are put into a model made from the configuration alone, and that is saved with the tokenizer and its chat template.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.encoding import fetched_fingerprint, locate, model_fingerprint
from rerankdistill.errors import ArtifactError, DataError
from rerankdistill.kinds import missing

FORMAT = 1


def cache_folder() -> Path:
    """Where unpacked models are kept: ``$RERANKDISTILL_CACHE``, or ``~/.cache/rerankdistill``."""
    return Path(os.environ.get("RERANKDISTILL_CACHE") or "~/.cache/rerankdistill").expanduser()


def resolve(model: str, base: Path = Path()) -> str:
    """A model's reference made independent of where its card lies: a path relative to ``base`` becomes whole, and
    everything else (an id, ``package:NAME/PATH``) what :func:`locate` makes of it.

    Raises:
        DataError: a path, and nothing is there.
        MissingDependency: the package is not installed.
    """
    beside = base / model
    if model and not model.startswith(("package:", "~")) and beside.exists():
        return str(beside.resolve()) if is_gguf(model) or beside.is_dir() else model
    found = locate(model)
    if is_gguf(found) and not Path(found).expanduser().is_file():
        raise DataError("no such gguf file", where=model, fix="give the path of the file, or package:NAME/FILE.gguf")
    return found


def is_gguf(model: str) -> bool:
    return model.endswith(".gguf")


def mark(model: str, revision: str | None = None, fetch: Callable[[], object] | None = None) -> str:
    """The fingerprint of a resolved model: of a gguf file's content; of a folder's weights, configuration, vocabulary
    and chat template; of an id and its revision, once it was fetched where ``fetch`` says how."""
    if is_gguf(model):
        return artifacts.fingerprint("gguf", artifacts.hash_file(Path(model)), FORMAT)
    return fetched_fingerprint(model, revision, fetch) if fetch else model_fingerprint(model, revision)


def unpacked(model: str) -> str:
    """What to give ``from_pretrained``: the model as it is, or the folder that a gguf file was unpacked to.

    Raises:
        MissingDependency: the package gguf is not installed.
        DataError: it is no gguf file, or of an architecture that cannot be read.
        ArtifactError: the cache cannot be written.
    """
    if not is_gguf(model):
        return model
    digest = artifacts.hash_file(Path(model))
    folder = cache_folder() / "gguf" / digest
    wanted = artifacts.plan("gguf model", FORMAT, {"dtype": "float16"}, {"file": digest})
    if artifacts.why_stale(folder, wanted) is None:
        return str(folder)
    loaded, tokenizer = _read(Path(model))
    try:
        with artifacts.write(folder, wanted) as staging:
            loaded.save_pretrained(staging)
            tokenizer.save_pretrained(staging)
    except ArtifactError:
        if artifacts.why_stale(folder, wanted) is not None:  # else another process was done a moment before
            raise
    return str(folder)


def _read(file: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a gguf file; the weights in float16, which is what its scales are kept in."""
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing(error, "a gguf file") from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(file.parent), file.name
    dense = GgufConfig(dequantize=True)  # else a machine with the fitting kernels would keep the packed blocks
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
        loaded = AutoModelForCausalLM.from_pretrained(
            where, gguf_file=name, dtype=torch.float16, quantization_config=dense
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, NotImplementedError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = "convert the model to a Hugging Face folder and name that"
        raise DataError(f"the gguf file cannot be read: {first}", where=str(file), fix=fix) from error
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    return fresh, tokenizer
