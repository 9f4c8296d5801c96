"""Which of the processes that torchrun started this one is; told without waiting for torch."""

import os

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # torchrun sets them all


def ranks() -> tuple[int, int]:
    """This process's number and how many there are; (0, 1) where torchrun did not start it."""
    given = [os.environ.get(name, "") for name in NAMES]
    if not all(text.isdigit() for text in given):  # some schedulers set one of them
        return 0, 1
    return int(given[1]), int(given[0])


def is_rank0() -> bool:
    """Whether this is the process that speaks and writes for all."""
    return ranks()[0] == 0
