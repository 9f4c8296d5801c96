"""Steps until the budget is spent, with metrics, samples, scores and checkpoints on the way."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from dermsynth import checkpoint, progress
from dermsynth.errors import UserError
from dermsynth.interrupts import StopRequest, stop_request
from dermsynth.seeds import generator
from dermsynth.tracking import Tracker
from gan.divergence import ADVICE, Watch
from gan.pictures import save_grid, to_uint8
from gan.trainer import Game
from gan.training_images import Reals
from gan.weights import CHECKPOINT

CHECKPOINT_SECONDS = 60.0  # between two checkpoints; a kill loses no more than that
LOG_STEPS = 50  # between two rows of metrics.jsonl
GRID = 6  # sample grids are GRID x GRID images

GO_ON, SAVE, STOP = range(3)


@dataclass(frozen=True)
class Schedule:
    """When the loop ends and what it does on the way."""

    out: Path  # run folder
    seed: int  # of the samples' latents
    minutes: float | None  # training time, over all resumes
    kimg: float | None  # or thousand real images
    stop_when_bad: bool  # end when the discriminator wins or the generator collapses, or only warn
    evaluate_every: float  # minutes between two scores; 0: none
    score: Callable[[torch.nn.Module], dict[str, float]]  # of a generator in eval mode


@dataclass
class Progress:
    """What the loop itself has to remember over a resume."""

    seconds: float = 0.0  # of training
    scored: float = 0.0  # seconds at the last score
    counts: dict[str, int] | None = None  # of Watch


class Loop:
    """One run of `game` on `reals`. Of several processes the first decides, writes and speaks."""

    def __init__(
        self,
        game: Game,
        reals: Reals,
        schedule: Schedule,
        tracker: Tracker | None,
        before: Progress,
        facts: dict[str, Any],
    ) -> None:
        self.game, self.reals, self.schedule, self.tracker = game, reals, schedule, tracker
        self.before, self.facts, self.scored = before.seconds, facts, before.scored
        self.watch = Watch(game.config.loss, before.counts)
        self.started = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time over all resumes."""
        return self.before + time.monotonic() - self.started

    def run(self) -> float:
        """Returns the seconds of training over all resumes.

        Raises KeyboardInterrupt, after a checkpoint, when a signal asks to stop, and UserError
        when training diverges.
        """
        game, processes = self.game, self.game.processes
        if processes.first:
            save_grid(self.schedule.out / "samples" / "reals.png", self.reals.first(GRID**2), GRID)
        with stop_request() as stop, self._bar() as bar:
            order = processes.first_says(STOP if self._finished() else GO_ON)
            while order != STOP:
                game.play(*self._batch())
                self._show(bar)
                self._record()
                order = processes.first_says(self._order(stop))
                if order == SAVE:
                    self._checkpoint()
            if game.seen:
                self._checkpoint()
        if stop.requested and not self._finished():
            raise KeyboardInterrupt(
                f"checkpoint at {game.seen / 1000:.1f} kimg written; the same command with "
                f"`--out {self.schedule.out} --resume` goes on from there"
            )
        if game.seen and processes.first:
            self._sample()
        return self.seconds

    def _finished(self) -> bool:
        if self.schedule.kimg is not None:
            return self.game.seen >= self.schedule.kimg * 1000
        assert self.schedule.minutes is not None
        return self.seconds >= self.schedule.minutes * 60

    def _order(self, stop: StopRequest) -> int:
        if stop.requested or self._finished():
            return STOP
        return SAVE if time.monotonic() - self.saved >= CHECKPOINT_SECONDS else GO_ON

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        game = self.game
        ranks = game.processes.rank, game.processes.count
        images, labels = self.reals.batch(game.step, game.images_a_step, *ranks)
        conditional = game.config.classes > 0
        return torch.from_numpy(images), torch.from_numpy(labels) if conditional else None

    def _record(self) -> None:
        game, step = self.game, self.game.step
        if step % LOG_STEPS == 0:
            means = game.take_means(LOG_STEPS)
            if self.tracker is not None:
                self._watch(means)
                times = {"kimg": game.seen / 1000, "seconds": round(self.seconds, 1)}
                self.tracker.log(step, **times, **means)
        if self.tracker is None:
            return
        if _grid_due(game.seen, game.images_a_step):
            self._sample()
        if 0 < self.schedule.evaluate_every * 60 <= self.seconds - self.scored:
            scores = self.schedule.score(game.ema)
            self.tracker.log(step, kimg=game.seen / 1000, seconds=round(self.seconds, 1), **scores)
            self.scored = self.seconds

    def _watch(self, means: dict[str, float]) -> None:
        complaint = self.watch.complaint(means)
        if complaint is None:
            return
        what = f"training diverged before step {self.game.step}: {ADVICE[complaint]}"
        if not self.schedule.stop_when_bad and complaint != "not a number":
            print(f"warning: {what}")
            return
        raise UserError(f"{what}. The last good checkpoint is in {self.schedule.out / CHECKPOINT}")

    def _sample(self) -> None:
        """Pictures of the same latents (and labels, in turn) at every time."""
        path = self.schedule.out / "samples" / f"{self.game.seen:08d}.png"
        rng = generator(self.schedule.seed, "gan/samples")
        z = rng.standard_normal((GRID**2, self.game.ema.latent_dim), np.float32)
        device, classes = self.game.compute.device, self.game.config.classes
        labels = torch.arange(GRID**2, device=device) % classes if classes else None
        with torch.no_grad(), self.game.compute.autocast():
            images = self.game.ema(torch.from_numpy(z).to(device), labels)
        save_grid(path, to_uint8(images), GRID)
        if self.tracker is not None:
            self.tracker.image(self.game.step, "samples", path)

    def _checkpoint(self) -> None:
        state = self.game.state()  # together: it may exchange between the processes
        self.saved = time.monotonic()
        if not self.game.processes.first:
            return
        if not self.game.is_finite():
            raise UserError(
                f"training diverged before step {self.game.step}: {ADVICE['not a number']}. The "
                f"last good checkpoint is in {self.schedule.out / CHECKPOINT}"
            )
        done = Progress(self.seconds, self.scored, self.watch.counts)
        folder = self.schedule.out / CHECKPOINT
        try:
            checkpoint.save(folder, state | vars(done) | self.facts)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise UserError(
                f"{folder}: could not be written ({error}); free some space, then go on with "
                "--resume from the checkpoint before it"
            ) from None

    def _bar(self) -> Any:
        schedule, silent = self.schedule, not self.game.processes.first
        if schedule.kimg is not None:
            left = max(schedule.kimg * 1000 - self.game.seen, 0)
            return progress.bar(left, "gan", "img", disable=silent)
        assert schedule.minutes is not None
        left = max(schedule.minutes * 60 - self.before, 0)
        layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        return progress.bar(left, "gan", "s", bar_format=layout, disable=silent)

    def _show(self, bar: Any) -> None:
        if self.schedule.kimg is not None:
            bar.update(self.game.images_a_step)
            return
        rate = self.game.seen / self.seconds
        bar.set_postfix_str(f"{rate:.1f} img/s, {self.game.seen / 1000:.1f} kimg", False)
        bar.update(min(self.seconds - self.before, bar.total) - bar.n)


def _grid_due(seen: int, step: int) -> bool:
    """At 1, 2, 4, 8, ... thousand images."""
    kimg, before = seen // 1000, (seen - step) // 1000
    return kimg > 0 and kimg.bit_length() > before.bit_length()
