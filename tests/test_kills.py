"""A run that is killed at random moments, saving included, ends with the weights of one that was not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from omni.errors import CheckpointError
from training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.slow
def test_killed_run_resumes_and_ends_bit_for_bit_the_same():
    command = [sys.executable, "scripts/check_kills.py", "--kills", "8"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout)
    assert figures["kills"] == 8 and figures["with_progress"] >= 2


def test_full_disk_is_named_and_the_earlier_checkpoint_stays(tmp_path):
    """Through the quota of the process itself: a write beyond it fails as on a full disk."""
    program = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from training.checkpoint import save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "save_checkpoint(folder, {'x': torch.ones(10)}, step=1, keep=2)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: save_checkpoint(folder, {'x': torch.ones(10**6)}, step=2, keep=2)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.startswith("CheckpointError checkpoint") and "free some space" in done.stdout, done.stderr
    newest = latest_checkpoint(tmp_path)
    assert newest is not None and newest.name == "step-00000001"
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(load_checkpoint(newest)["x"], torch.ones(10))


def test_what_a_kill_leaves_behind_is_cleared(tmp_path):
    (tmp_path / ".step-00000001.part").mkdir(parents=True)
    (tmp_path / ".step-00000001.part" / "state.pt").write_bytes(b"half")
    (tmp_path / "step-00000001").mkdir()
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, {"x": 1}, step=1, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert load_checkpoint(tmp_path / "step-00000001") == {"x": 1}


def test_further_files_belong_to_the_manifest(tmp_path):
    path = save_checkpoint(
        tmp_path, {}, step=1, keep=2, write=lambda folder: (folder / "extra").write_text("x") and None
    )
    (path / "extra").write_text("y")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)
