"""Several processes that train one network, a share of each batch each: `torchrun -m ...`.

Gradients are averaged by hand: the GAN's step differentiates twice and updates two networks in
turn, which DistributedDataParallel does not follow, and the classifier's is to be that of one
process. Where a process ends early, the others end in their next exchange with it.
"""

import atexit
import contextlib
import datetime
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

from dermsynth.errors import OtherProcessError, UserError
from dermsynth.options import DeviceName
from dermsynth.ranks import ranks

T = TypeVar("T")
# Of an exchange: one that has ended is noticed at once, but rank 0 may draw a phantom, make a pool
# or score a test set while the others wait for it.
PATIENCE = datetime.timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; alone where torchrun did not start it.

    All exchange in the same order. Every method but `share` and `blocks` raises OtherProcessError
    where another process has ended.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_rank0(self) -> bool:
        """Rank 0 decides, writes and prints."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of n things: together they are all, in the order of the ranks."""
        return slice(self.rank * n // self.count, (self.rank + 1) * n // self.count)

    def blocks(self, n: int, size: int) -> slice:
        """As `share`, but cut between blocks of `size` only, the last of which may be smaller."""
        mine = self.share(-(-n // size))
        return slice(min(mine.start * size, n), min(mine.stop * size, n))

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its sum over all processes; returns it."""
        if self.count > 1:
            with _exchange():
                distributed.all_reduce(tensor)
        return tensor

    def mean_(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in one exchange."""
        tensors = list(tensors)
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])
        means = self.sum_(flat) / self.count
        parts = means.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def mean_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Before an optimizer's step: every process then makes the same one."""
        self.mean_(p.grad for p in parameters if p.grad is not None)

    def mean_statistics(self, network: torch.nn.Module) -> None:
        """Average the buffers that a network's checkpoint holds; the others never change."""
        saved = network.state_dict()
        buffers = (b for name, b in network.named_buffers() if name in saved)
        self.mean_(b for b in buffers if b.is_floating_point())

    def rank0_decides(self, number: int) -> int:
        """Rank 0's number, in every process, which waits for it."""
        if self.count == 1:
            return number
        decision = torch.tensor(number)  # on the CPU: accelerators go on with their queue
        with _exchange():
            distributed.broadcast(decision, 0)
        return int(decision)

    def rank0_gives(self, value: T) -> T:
        """Rank 0's value, in every process, which waits for it; it is not of a device."""
        if self.count == 1:
            return value
        values = [value]
        with _exchange():
            distributed.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Everybody's value in the order of the ranks, in every process; it is not of a device."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        with _exchange():
            distributed.all_gather_object(values, value)
        return values

    @contextlib.contextmanager
    def rank0_first(self) -> Iterator[None]:
        """The others enter the block when rank 0 has left it; where it fails there, never.

        So what is checked in it is said once, and what is made in it is made once.
        """
        if not self.is_rank0:
            self.rank0_decides(0)
        yield
        if self.is_rank0:
            self.rank0_decides(0)


def join_processes(device: DeviceName) -> Processes:
    """Meet the other processes that torchrun started. Call before a device is chosen.

    Raises UserError where there are more of them than GPUs, and for a TPU.
    """
    rank, count = ranks()
    if count == 1:
        return Processes()
    if device in ("xla", "tpu"):
        raise UserError(
            f"--device {device}: one training computes on one chip; start the command "
            "with python, not with torchrun"
        )
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        here, cards = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > cards:
            raise UserError(
                f"--nproc-per-node {here}: each process has a GPU of its own, and this machine has "
                f"{cards}; give torchrun --nproc-per-node {cards}, or the command --device cpu"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        with _exchange():
            backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
            distributed.init_process_group(backend, timeout=PATIENCE)
        atexit.register(_part)
    return Processes(rank, count)


def check_shares(batch: int, accumulate: int, processes: Processes, least: int = 1) -> None:
    """Raise UserError unless a batch falls into equal shares of at least `least` images.

    `accumulate`: parts that it is computed in, of which each process has a share.
    """
    parts = accumulate * processes.count
    if batch % parts == 0 and batch // parts >= least:
        return
    near = {max(least, batch // parts) * parts, max(least, -(-batch // parts)) * parts}
    among = f", {accumulate} part(s) in {processes.count} process(es)" if parts > 1 else ""
    why = f" of {least} images or more, for batch norm" if least > 1 else ""
    raise UserError(
        f"--batch {batch}{among}: expected equal parts{why}; "
        f"--batch {' or '.join(map(str, sorted(near)))} would do"
    )


def _part() -> None:
    """At the end of a process. torchrun may tell it to end, as another has: that is no news."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    distributed.destroy_process_group()


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """What torch raises where another process is gone, as an error of ours."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise OtherProcessError(str(error)) from error
