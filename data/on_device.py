"""Images where the network computes: on an accelerator once and for all, where they fit.

10,000 images of 128 px are 0.5 GB. What does not fit is read ahead by a thread, from pinned memory.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
import torch

from data.store import ImageStore
from dermsynth import progress
from dermsynth.tensors import free_bytes, send

CHUNK = 512  # images that are read and sent at a time
SHARE = 0.5  # of the device's free memory that images may take; the training needs the rest


class DeviceImages:
    """Images of one or several stores at one size, read in any order.

    Their numbers go on from store to store: the first of the second one follows the last of the
    first, so that a batch of both is one gather, whatever its mixture.

    Parameters
    ----------
    stores : each uint8 [n, s, s, 3], in memory or read as they are needed
    size : side to which they are brought, px
    device : where they are wanted
    """

    def __init__(
        self, stores: Sequence[ImageStore | np.ndarray], size: int, device: torch.device
    ) -> None:
        self.stores, self.size, self.device = stores, size, device
        self.starts = np.cumsum([0, *map(len, stores)])  # of each store, and the end
        self._there: torch.Tensor | None = None
        self._ahead: dict[bytes, Future[torch.Tensor]] = {}
        self._reader: ThreadPoolExecutor | None = None
        if device.type == "cpu":
            return
        image, count, free = size * size * 3, int(self.starts[-1]), free_bytes(device)
        if free is None or count * image <= SHARE * free:
            self._there = self._sent()
            return
        # only CUDA says what is free; a thread begins on the first card, not on this process's
        card = torch.cuda.current_device()
        self._reader = ThreadPoolExecutor(1, "read ahead", torch.cuda.set_device, (card,))
        print(
            f"note: {count} images of {size} px are {count * image / 2**30:.1f} GiB, more than "
            f"half of the {free / 2**30:.1f} GiB that are free on {device} "
            f"({SHARE * free // image:.0f} of them would fit): they are read as they are needed"
        )

    def take(self, numbers: np.ndarray) -> torch.Tensor:
        """uint8 [m, size, size, 3] of numbers int64 [m], on the device."""
        if self._there is not None:
            return self._there[send(numbers, self.device)]
        ahead = self._ahead.pop(numbers.tobytes(), None)
        pixels = self._read(numbers) if ahead is None else ahead.result()
        return pixels.to(self.device, non_blocking=True)

    def expect(self, numbers: Callable[[], np.ndarray]) -> None:
        """Say what is taken next, so that it is read meanwhile; asked for where that is of use."""
        if self._reader is not None:
            rows = numbers()
            self._ahead = {rows.tobytes(): self._reader.submit(self._read, rows)}

    def _read(self, numbers: np.ndarray) -> torch.Tensor:
        """The same on the CPU; pinned where it is to be sent to a GPU."""
        pixels = np.empty((len(numbers), self.size, self.size, 3), np.uint8)
        store = np.searchsorted(self.starts, numbers, "right") - 1
        for at in np.unique(store):
            chosen = store == at
            rows = numbers[chosen] - self.starts[at]
            pixels[chosen] = resized(self.stores[at][rows], self.size)
        tensor = torch.from_numpy(pixels)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _sent(self) -> torch.Tensor:
        count = int(self.starts[-1])
        there = torch.empty((count, self.size, self.size, 3), dtype=torch.uint8, device=self.device)
        with progress.bar(count, f"images to {self.device.type}", "img") as bar:
            bar.leave = False
            for start in range(0, count, CHUNK):
                numbers = np.arange(start, min(start + CHUNK, count))
                there[start : start + len(numbers)] = self._read(numbers).to(self.device)
                bar.update(len(numbers))
        return there


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, s, s, 3] to [n, size, size, 3]: real or synthetic, all pixels take this path."""
    if images.shape[1] == size:
        return np.ascontiguousarray(images)
    way = cv2.INTER_AREA if size < images.shape[1] else cv2.INTER_CUBIC
    small = [cv2.resize(image, (size, size), interpolation=way) for image in images]
    return np.stack(small) if small else np.empty((0, size, size, 3), np.uint8)
