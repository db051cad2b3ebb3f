"""Training processes: the rank and device of this one, and exchange with the others.

Under `torchrun` each process computes its part of every batch, and torch's DistributedDataParallel sums the gradients: over
gloo on CPUs, over NCCL on GPUs. Only the first process writes files and reports.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from showtell.errors import OptionError

T = TypeVar("T")

# The others wait while the first process extracts features. Errors need no timeout: torchrun ends all processes.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Processes:
    """This process among `count`; the first has rank 0."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """The other processes enter the block when the first one has left it, and find its files."""
        if not self.first:
            self.from_first(None)
        yield
        if self.first:
            self.from_first(None)

    def sum(self, values: Tensor) -> Tensor:
        """Sums `values` over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every process's `value`, in the order of ranks."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """The first process's `value`; the others wait for it."""
        box = [value]
        if self.count > 1:
            dist.broadcast_object_list(box)
        return box[0]


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone; `device` is auto, cpu or cuda."""
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError("training.device is cuda, and torch finds no GPU here; set it to cpu or auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = torch.device(device, int(os.environ.get("LOCAL_RANK", "0"))) if device == "cuda" else torch.device("cpu")
    if local.type == "cuda":
        torch.cuda.set_device(local)
    if count == 1:
        yield Processes(local)
        return
    # Its functions keep the process group of the time of their import, as a default value. DistributedDataParallel would
    # import it below: the group and its threads then outlive destroy_process_group, and Python may abort when it exits.
    importlib.import_module("torch.distributed.nn.functional")
    # Objects travel over gloo also where tensors travel over NCCL.
    dist.init_process_group("cpu:gloo,cuda:nccl" if local.type == "cuda" else "gloo", timeout=PATIENCE)
    yield Processes(local, dist.get_rank(), count)
    dist.destroy_process_group()  # not after an error, when it would wait for the others; torchrun ends them
