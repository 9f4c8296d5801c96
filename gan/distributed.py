"""Several processes that train one GAN, a share of each batch each: `torchrun -m gan.train`.

Gradients and batch statistics are averaged by hand, because the step differentiates twice and
updates the two networks in turn, which DistributedDataParallel does not follow.
"""

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """This process among those of the run; alone where torchrun did not start it."""

    rank: int = 0
    count: int = 1

    @property
    def is_rank0(self) -> bool:
        """Rank 0 decides, writes and prints."""
        return self.rank == 0

    def mean_(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in one exchange."""
        tensors = list(tensors)
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        parts = (flat / self.count).split([tensor.numel() for tensor in tensors])
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
        distributed.broadcast(decision, 0)
        return int(decision)

    def rank0_says(self, path: Path) -> Path:
        """Rank 0's path, in every process, which waits for it."""
        if self.count == 1:
            return path
        text = os.fsencode(path)
        letters = torch.zeros(self.rank0_decides(len(text)), dtype=torch.uint8)
        if self.is_rank0:
            letters = torch.tensor(list(text), dtype=torch.uint8)
        distributed.broadcast(letters, 0)
        return Path(os.fsdecode(bytes(letters.tolist())))


def join_processes() -> Processes:
    """Meet the other processes that torchrun started. Call before a device is chosen."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend)
        atexit.register(distributed.destroy_process_group)
    return Processes(distributed.get_rank(), count)
