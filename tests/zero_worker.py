"""What each rank of tests/test_zero.py runs; see there."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parents[1]))


def words_only(batch):
    """Turn a batch into one without media, as a rank may draw it."""
    from omni.masks import AttentionIds

    keep = batch.modality[0] == 0
    place = torch.cumsum(keep, 0) - 1
    mine = (batch.logit_index < len(keep)) & keep[batch.logit_index.clamp(max=len(keep) - 1)]
    attention = AttentionIds(*(getattr(batch.attention, n)[:1, keep] for n in AttentionIds.__annotations__))
    return replace(
        batch,
        ids=batch.ids[:1, keep],
        modality=batch.modality[:1, keep],
        positions=batch.positions[:1, keep],
        sigma_index=torch.zeros_like(batch.sigma_index[:1, keep]),
        sigmas=torch.zeros(1),
        attention=attention,
        logit_index=place[batch.logit_index[mine]],
        labels=batch.labels[mine],
        latents={},
        velocity={},
        is_noisy={},
    )


def main(folder: Path) -> None:
    """Train by every config of a folder, one after another; then one step in which the ranks draw different things."""
    from accelerate.state import AcceleratorState

    from training.config import TrainConfig
    from training.loop import Run

    rank = int(os.environ["RANK"])
    for path in sorted(folder.glob("*.json")):
        AcceleratorState._reset_state()  # it is made for one DeepSpeed config a process
        run = Run(TrainConfig.model_validate_json(path.read_text()))
        run.train(fresh=False)
        if "mixed" in path.name:
            batches, _ = run.read(0)
            report = run.engine.step([words_only(batches[0])] if rank else batches, step=5)
            if rank == 0:
                (Path(run.output) / "mixed.txt").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
