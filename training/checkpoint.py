"""Checkpoints of a run: written aside, checked, then named; a kill at any moment leaves a whole one.

A checkpoint is a folder `step-N` with state.pt (tensors and plain values only, read with weights_only), perhaps an
adapter's files, and manifest.json with the SHA-256 of each. The newest folder whose manifest holds is resumed.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from omni.errors import CheckpointError

__all__ = ["latest_checkpoint", "load_checkpoint", "publish", "save_checkpoint"]

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


def save_checkpoint(
    folder: Path, state: dict[str, Any], *, step: int, keep: int, write: Callable[[Path], None] | None = None
) -> Path:
    """Write a checkpoint and remove all but it and the `keep` - 1 before it.

    Args:
        folder: of the run.
        state: tensors and plain values.
        step: which names the checkpoint.
        keep: how many checkpoints stay.
        write: puts further files into the checkpoint's folder.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; earlier checkpoints stay whole.
    """
    final, aside = folder / f"step-{step:08d}", folder / f".step-{step:08d}.part"
    try:
        for left_over in folder.glob(".step-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        aside.mkdir(parents=True)
        torch.save(state, aside / STATE)
        if write is not None:
            write(aside)
        sums = {path.name: file_digest(path) for path in sorted(aside.iterdir())}
        (aside / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
        for path in (*aside.iterdir(), aside):
            _flush(path)
        if final.exists():
            final.rename(folder / f".step-{step:08d}.old")
        aside.rename(final)
        _flush(folder)
    except (OSError, RuntimeError) as error:
        is_full = _is_full(error, folder)
        shutil.rmtree(aside, ignore_errors=True)
        reason = "the disk is full" if is_full else str(error)
        raise CheckpointError(
            f"checkpoint {final} could not be written ({reason}); free some space and run the same command again, "
            "it goes on from the checkpoint before"
        ) from error
    # Later steps are of a run that was begun anew.
    kept = sorted(path for path in folder.glob("step-*") if path <= final)[-keep:]
    for old in {*folder.glob("step-*"), *folder.glob(".step-*")}.difference(kept):
        shutil.rmtree(old, ignore_errors=True)
    return final


def _is_full(error: Exception, folder: Path) -> bool:
    """Whether an error comes of a full disk; torch.save hides the number of the error."""
    causes: list[BaseException | None] = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes):
        return True
    return "enforce fail" in str(error) or shutil.disk_usage(folder).free < 2**20


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


def load_checkpoint(path: Path, *, is_shared: bool = False) -> dict[str, Any]:
    """Read a checkpoint; tensors and plain values only, no code is run.

    Args:
        path: of a whole checkpoint.
        is_shared: map the file into memory, where several processes of a machine read it.

    Raises:
        CheckpointError: it is not whole.
    """
    if not is_whole(path):
        raise CheckpointError(f"{path} is damaged or incomplete; resume from an earlier checkpoint")
    return torch.load(path / STATE, map_location="cpu", weights_only=True, mmap=is_shared)


def publish(checkpoint: Path, folder: Path) -> None:
    """Copy what a checkpoint holds beside its state into the run's folder, each file in one move.

    Args:
        checkpoint: as save_checkpoint returned it.
        folder: of the run.
    """
    for path in checkpoint.iterdir():
        if path.name not in (STATE, MANIFEST):
            aside = folder / f".{path.name}.part"
            shutil.copyfile(path, aside)
            os.replace(aside, folder / path.name)
