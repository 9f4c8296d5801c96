"""What a run measured: `metrics.jsonl` always, Weights & Biases beside it.

`auto` sends to W&B where an API key is configured and works offline otherwise. It never prompts
and never stalls: with no answer in `PATIENCE` seconds the run goes on offline.
"""

import contextlib
import io
import json
import os
import secrets
import threading
from pathlib import Path
from typing import Any

from dermsynth.options import TrackingMode

PATIENCE = 20  # seconds that W&B's server may take to answer before we go on offline


class Tracker:
    """Rows of scalars, each with a `step`, to `folder/metrics.jsonl` and to W&B.

    `resume_step` drops the rows after that step (they were written after the checkpoint that the
    run resumes from), so that a resumed file equals an unbroken one.
    """

    def __init__(
        self,
        folder: Path,
        mode: TrackingMode,
        config: dict[str, Any],
        group: str,
        resume_step: int | None = None,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        rows = [] if resume_step is None else self._rows_until(resume_step)
        self.path.write_text("".join(rows), encoding="utf-8")
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self._wandb = _start_wandb(folder, mode, config, group)

    def log(self, step: int, **values: float | int | str) -> None:
        """Append one row; it is on disk when this returns."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def image(self, step: int, name: str, path: Path) -> None:
        """Send a picture that lies on disk to W&B."""
        if self._wandb is not None:
            import wandb

            self._wandb.log({name: wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        """Finish the W&B run. Nothing is lost without it but W&B's closing line."""
        self._file.close()
        if self._wandb is not None:
            # a server that stopped answering must not hold the run's result back
            finishing = threading.Thread(target=self._wandb.finish, daemon=True)
            finishing.start()
            finishing.join(3 * PATIENCE)
            if finishing.is_alive():
                print(
                    f"warning: W&B is still sending; `wandb sync {self._wandb.dir}` does the rest"
                )

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _rows_until(self, step: int) -> list[str]:
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            with contextlib.suppress(ValueError):  # the last line of a killed run may be cut
                if json.loads(line)["step"] <= step:
                    rows.append(line)
        return rows


def _start_wandb(folder: Path, mode: TrackingMode, config: dict[str, Any], group: str) -> Any:
    if mode == "none" or (mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"):
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    online = mode == "wandb" or (mode == "auto" and _has_key() and "WANDB_MODE" not in os.environ)
    identity = folder / "wandb-id.txt"
    if not identity.exists():
        identity.write_text(secrets.token_hex(4))
    for attempt in ["online", "offline"] if online else ["offline"]:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return wandb.init(
                    project="dermsynth",
                    dir=folder,
                    id=identity.read_text().strip(),
                    resume="allow" if attempt == "online" else None,
                    name=folder.name,
                    group=group,
                    config=config,
                    mode=attempt,  # type: ignore[arg-type]
                    settings=wandb.Settings(
                        init_timeout=PATIENCE, login_timeout=PATIENCE, console="off", silent=True
                    ),
                )
        except Exception as error:  # whatever fails in tracking must not end a run
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            next_step = "going on offline" if attempt == "online" else "metrics.jsonl only"
            print(f"warning: W&B {attempt} did not start ({reason}); {next_step}")
    return None


def _has_key() -> bool:
    """True where W&B would find an API key without asking: the environment or ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc
    from urllib.parse import urlparse

    host = urlparse(os.environ.get("WANDB_BASE_URL", "")).hostname or "api.wandb.ai"
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
