"""Python's garbage collector, and the half a million objects of a server that stay."""

from __future__ import annotations

import gc


def settle() -> None:
    """Have the collector leave alone what is there now: modules, tokenizers, models. It looked through all of it every
    few seconds under load, and for a quarter of a second nobody was answered.

    What was left alone so far and is used no more, such as a student that was replaced, is collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
