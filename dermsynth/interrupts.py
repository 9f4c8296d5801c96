"""Ctrl-C and SIGTERM end a training loop between two steps, after its checkpoint; none is lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


class StopRequest:
    """`requested` turns true at the first signal; a second one interrupts at once."""

    requested = False
    message = ""  # said when it ends by a signal: what was kept, and how to go on

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the block SIGINT and SIGTERM only set `requested`; the loop checks it each step.

    A signal that came too late for the loop to see, in its last step, is not forgotten: then the
    end of the block raises KeyboardInterrupt, with the request's message.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread only
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, request._receive) for number in numbers]
    try:
        yield request
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    if request.requested:
        raise KeyboardInterrupt(request.message)


def terminate_as_interrupt() -> None:
    """SIGTERM ends this process as Ctrl-C does: what it has begun is cleaned up or kept."""

    def receive(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, receive)
