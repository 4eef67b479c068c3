"""Banks of rendered scenes: uint8 arrays on disk, made once, so that rendering never starves the training.

N scenes, H rows, W columns.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.world.held_out import Split
from training.world.scene import render, sample_scene

__all__ = ["open_bank", "render_scenes"]

CHUNK = 500


def render_scenes(first: int, count: int, *, size: tuple[int, int], split: Split, seed: int) -> NDArray[np.uint8]:
    """Render scenes number first .. first + count - 1 of an endless list, [N, H, W, 3].

    Args:
        first: number of the first scene; scene k is the same however the list is cut.
        count: how many.
        size: rows and columns.
        split: "train", "validation" or "test", of the world's held-out combinations.
        seed: of the list.
    """
    pictures = np.empty((count, *size, 3), dtype=np.uint8)
    for k in range(count):
        rng = random.Random(f"{seed}/{first + k}/{size[0]}x{size[1]}")
        pictures[k] = render(sample_scene(rng, split), *size)
    return pictures


def _fill(job: tuple[Path, int, int, tuple[int, int], int]) -> None:
    path, first, count, size, seed = job
    bank = np.lib.format.open_memmap(path, mode="r+")
    bank[first : first + count] = render_scenes(first, count, size=size, split="train", seed=seed)


def open_bank(folder: Path, *, size: tuple[int, int], count: int, seed: int, num_workers: int) -> NDArray[np.uint8]:
    """Open a bank of training scenes, [N, H, W, 3], and render it first where it is not there yet.

    Args:
        folder: where banks live; delete it after a change of the world.
        size: rows and columns.
        count: number of scenes.
        seed: of the scenes.
        num_workers: rendering processes.
    """
    path = folder / f"scenes-{size[0]}x{size[1]}-{count}-seed{seed}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part.npy")
        np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=(count, *size, 3)).flush()
        jobs = [(aside, k, min(CHUNK, count - k), size, seed) for k in range(0, count, CHUNK)]
        # Threads of torch do not survive a fork, so workers start afresh.
        with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
            for _ in pool.imap_unordered(_fill, jobs):
                pass
        os.replace(aside, path)
    return np.load(path, mmap_mode="r")
