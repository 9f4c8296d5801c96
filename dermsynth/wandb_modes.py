"""Whether W&B is reached: what options and environment ask for, its key, its server, in time."""

import netrc
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal, TypeVar
from urllib.parse import urlparse

from dermsynth.options import TrackingMode

PATIENCE = 20.0  # seconds that one thing of W&B's may take before the run goes on without it
Mode = Literal["online", "offline"]
MODES: dict[str, Mode | None] = {  # the values of WANDB_MODE
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": None,
}
T = TypeVar("T")


def choose_mode(option: TrackingMode) -> Mode | None:
    """What `--tracking` and WANDB_MODE ask for; none is no tracking at W&B.

    An option that was given wins over the environment, and says so; under `auto` WANDB_MODE
    decides, else whether there is a key. Online without a key is offline: W&B would ask for one.
    """
    said = os.environ.get("WANDB_MODE", "").strip().lower()
    if said and said not in MODES:
        print(f"warning: WANDB_MODE={said} is none of {', '.join(MODES)}; metrics.jsonl only")
        return None
    if option == "none":
        return None
    if option == "auto":
        wanted = MODES[said] if said else "online" if has_key() else "offline"
    else:
        wanted = "online" if option == "wandb" else "offline"
        if said and MODES[said] != wanted:
            print(f"warning: --tracking {option} overrules WANDB_MODE={said}")
    if wanted == "online" and not has_key():
        print("warning: W&B has no API key (WANDB_API_KEY or `wandb login`); going on offline")
        return "offline"
    return wanted


def has_key() -> bool:
    """True where W&B would find a key without asking: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        host = urlparse(_server()).hostname or ""
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except Exception:  # no such file, not readable, no netrc; W&B's own settings damaged
        return False


def within(seconds: float, function: Callable[[], T]) -> T:
    """What `function` gives, or raises. After `seconds` a TimeoutError: it is left to itself."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # SystemExit too: W&B's own end is not the run's
            is_error = isinstance(error, Exception)
            future.set_exception(error if is_error else RuntimeError(repr(error)))

    threading.Thread(target=work, daemon=True).start()
    return future.result(seconds)


def knock() -> None:
    """Raise ConnectionError where nobody answers at the server, before W&B tries at length."""
    import requests

    url = _server()

    def ask() -> None:
        requests.get(
            url,
            auth=lambda request: request,  # else the key of ~/.netrc goes along
            timeout=PATIENCE / 4,
            allow_redirects=False,
            stream=True,
        ).close()

    try:
        within(PATIENCE / 2, ask)
    except requests.exceptions.SSLError:
        return  # somebody is there; W&B has certificates of its own
    except (requests.exceptions.RequestException, TimeoutError):
        raise ConnectionError(f"{url} does not answer") from None


def _server() -> str:
    """The address of W&B's server: the environment's, that of `wandb login`, or the public one."""
    if os.environ.get("WANDB_BASE_URL"):
        return os.environ["WANDB_BASE_URL"]
    import wandb

    return str(wandb.setup().settings.base_url)


def reason(error: BaseException) -> str:
    """An error in a line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
