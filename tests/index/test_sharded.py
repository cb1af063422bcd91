"""Shards on disk: that they are one index, and that it need not fit into memory."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from rerankdistill.errors import DamagedArtifact
from rerankdistill.index.build import IndexCard, build_index, open_index
from rerankdistill.index.update import update_index
from rerankdistill.kinds import open_kind

SHARDED = open_kind("index", "sharded")


@pytest.mark.parametrize("shard", [37, 399])
def test_shards_are_one_exact_index_and_ties_fall_across_them_as_in_flat(world, build, shard):
    flat = build("flat", world.doc_ids, world.vectors)
    index = build("sharded", world.doc_ids, world.vectors, shard=shard)
    assert len(index._shards) == -(-400 // shard)
    for depth in (1, 7, 60, 400):
        assert index.search(world.vectors[:20], depth) == flat.search(world.vectors[:20], depth)


def test_lists_in_shards_share_their_centroids_and_find_what_lists_in_one_file_find(world, build):
    options = {"nlist": 12, "nprobe": 3}
    whole = build("ivf", world.doc_ids, world.vectors, **options)
    index = build("sharded", world.doc_ids, world.vectors, inside="ivf", shard=90, **options)
    assert index.search(world.vectors[:30], 10) == whole.search(world.vectors[:30], 10)
    assert index.search(world.vectors[:30], 10) != build("flat", world.doc_ids, world.vectors).search(
        world.vectors[:30], 10
    )


@pytest.mark.parametrize("inside", ["flat", "ivf"])
def test_an_update_writes_what_is_new_and_links_what_stays(world, build, tmp_path, inside):
    build("sharded", world.doc_ids[:300], world.vectors[:300], inside=inside, shard=100, nlist=4, nprobe=4)
    folder = tmp_path / "sharded"
    before = [(folder / f"shard-{n:05}.faiss").stat().st_ino for n in range(3)]
    gone = [*world.doc_ids[:80], *world.doc_ids[150:160]]
    update_index(folder, SHARDED, world.doc_ids[300:], world.vectors[300:], gone)
    after = [path.stat().st_ino for path in sorted(folder.glob("shard-*"))]
    assert len(after) == 4
    assert before[0] not in after, "four fifths of it were deleted"
    assert after[1:3] == before[1:]
    index = open_index(folder, SHARDED)
    rows = [row for row in range(400) if world.doc_ids[row] not in gone]
    assert len(index.ids.alive) == len(rows) == len(index.ids) - 10
    flat = build("flat", [world.doc_ids[row] for row in rows], world.vectors[rows])
    for depth in (1, 30, 310, 400):
        assert index.search(world.vectors[:20], depth) == flat.search(world.vectors[:20], depth)


def test_a_shard_that_is_missing_is_named(world, build, tmp_path):
    build("sharded", world.doc_ids, world.vectors, shard=100)
    (tmp_path / "sharded" / "shard-00002.faiss").unlink()
    with pytest.raises(DamagedArtifact, match=r"shard-00002\.faiss.*missing"):
        open_index(tmp_path / "sharded", SHARDED)


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from rerankdistill.codebooks import load_faiss
from rerankdistill.index.build import open_index
from rerankdistill.kinds import open_kind
import pyarrow as pa
kind, folder, megabytes = open_kind("index", sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
load_faiss()
pa.ipc.open_file(str(folder / "doc_ids.arrow")).read_all()
status = Path("/proc/self/status").read_text().splitlines()
used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
limit = used + megabytes * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    index = open_index(folder, kind)
    print(index.search(np.load(sys.argv[4]), 5))
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA holds for all that a process keeps on Linux alone")
def test_an_index_larger_than_the_process_may_keep_in_memory_is_searched(tmp_path):
    """RLIMIT_DATA bounds what a process allocates, and not the pages of files that the system may drop at any time."""
    rows, width, allowed = 120_000, 384, 80
    vectors = np.lib.format.open_memmap(tmp_path / "v.npy", mode="w+", dtype=np.float32, shape=(rows, width))
    chance = np.random.default_rng(0)
    for start in range(0, rows, 10_000):
        vectors[start : start + 10_000] = chance.random((10_000, width), np.float32) - 0.5
    np.save(tmp_path / "q.npy", vectors[[5, 37_777]])
    ids, told = [str(n) for n in range(rows)], {}
    for name in ("flat", "sharded"):
        card = IndexCard(kind=name, options={"shard": 10_000} if name == "sharded" else {})
        kind_class, folder = open_kind("index", name), tmp_path / name
        found = build_index(folder, card, ids, vectors, {"docs": "", "encoder": ""}, kind_class)
        assert found.counts["bytes"] > 2 * allowed * 2**20
        arguments = [sys.executable, "-c", LIMITED, name, str(folder), str(allowed), str(tmp_path / "q.npy")]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # a thread's stack counts as data
        done = subprocess.run(arguments, capture_output=True, text=True, env=alone)
        told[name] = done.stdout.strip() or done.stderr
    assert told["flat"] == "MemoryError"
    wanted = open_index(tmp_path / "flat", open_kind("index", "flat")).search(np.load(tmp_path / "q.npy"), 5)
    assert [hits[0][0] for hits in wanted] == ["5", "37777"]
    assert told["sharded"] == str(wanted)
