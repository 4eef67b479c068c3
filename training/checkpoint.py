"""Checkpoints of a run: written aside, checked, then named; a kill at any moment leaves a whole one.

A checkpoint is a folder `step-N` with state.pt (tensors and plain values only, read with weights_only) and
manifest.json with its SHA-256. `latest` is the newest folder whose manifest holds.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from omni.errors import CheckpointError

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint"]

STATE, MANIFEST = "state.pt", "manifest.json"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_checkpoint(folder: Path, state: dict[str, Any], *, step: int, keep: int) -> Path:
    """Write a checkpoint and remove all but the newest `keep`.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; earlier checkpoints stay whole.
    """
    final, aside = folder / f"step-{step:08d}", folder / f".step-{step:08d}.part"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        torch.save(state, aside / STATE)
        (aside / MANIFEST).write_text(json.dumps({STATE: file_digest(aside / STATE)}), encoding="utf-8")
        for name in (STATE, MANIFEST):
            _flush(aside / name)
        shutil.rmtree(final, ignore_errors=True)
        aside.rename(final)
        _flush(folder)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {final} could not be written ({error}); free some space and resume"
        ) from error
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def is_whole(path: Path) -> bool:
    """Whether a checkpoint's files are what its manifest says."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(file_digest(path / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError):
        return False


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run, or None."""
    return next((path for path in sorted(folder.glob("step-*"), reverse=True) if is_whole(path)), None)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; tensors and plain values only, no code is run.

    Raises:
        CheckpointError: it is not whole.
    """
    if not is_whole(path):
        raise CheckpointError(f"{path} is damaged or incomplete; resume from an earlier checkpoint")
    return torch.load(path / STATE, map_location="cpu", weights_only=True)
