"""The processes of a run: how many there are, and the few things they tell each other."""

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["Ranks", "start_ranks"]


class Ranks:
    """This process among all of a run.

    Attributes:
        rank: its number.
        size: how many there are.
    """

    def __init__(self) -> None:
        is_many = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if is_many else 0
        self.size = dist.get_world_size() if is_many else 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes logs and checkpoints."""
        return self.rank == 0

    def sum(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Add numbers up over all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return every process's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def start_ranks() -> Ranks:
    """Join the processes that torchrun, deepspeed or accelerate started; alone without them."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Ranks()
