"""Steps until the budget is spent, with metrics, samples, scores and checkpoints on the way."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.provenance import ScoredRecord
from dermsynth import checkpoint
from dermsynth.errors import UserError
from dermsynth.interrupts import StopRequest, stop_request
from dermsynth.progress import bar as progress_bar
from dermsynth.seeds import generator
from dermsynth.tracking import Tracker
from gan.choice import Choice
from gan.divergence import ADVICE, DivergenceMonitor
from gan.pictures import save_grid, to_uint8
from gan.trainer import Trainer
from gan.training_images import TrainingImages
from gan.weights import CHECKPOINT

CHECKPOINT_SECONDS = 60.0  # between two checkpoints; a kill loses no more than that
LOG_STEPS = 10  # between two rows of metrics.jsonl; the first step has one too
WATCHED_STEPS = 50  # over whose means divergence is looked for
GRID = 6  # sample grids are GRID x GRID images

GO_ON, SAVE, STOP = range(3)


@dataclass(frozen=True)
class Budget:
    """When the loop ends and what it does on the way."""

    path: Path  # where the run is written
    seed: int  # of the samples' latents
    minutes: float | None  # training time, over all resumes
    kimg: float | None  # or thousand real images
    stop_when_bad: bool  # end when the discriminator wins or the generator collapses, or only warn
    evaluations: int  # scores, evenly over the budget
    # of a generator in eval mode that has seen so many thousand images; None: it cannot be scored
    score: Callable[[torch.nn.Module, float], ScoredRecord] | None
    go_on: str  # the command that resumes the run, for messages


@dataclass
class Progress:
    """What the loop itself has to remember over a resume."""

    seconds: float = 0.0  # of training
    counts: dict[str, int] | None = None  # of DivergenceMonitor
    choice: Choice = field(default_factory=Choice)


class Loop:
    """One run of a trainer. Of several processes rank 0 decides, writes and prints.

    Parameters
    ----------
    trainer : both networks, and their step
    images : what they learn from
    budget : when the loop ends and what it does on the way
    tracker : of the metrics; none in processes other than rank 0
    progress : where the run was when its checkpoint was written
    facts : what else the checkpoint is to hold
    """

    def __init__(
        self,
        trainer: Trainer,
        images: TrainingImages,
        budget: Budget,
        tracker: Tracker | None,
        progress: Progress,
        facts: dict[str, Any],
    ) -> None:
        self.trainer, self.images, self.budget, self.tracker = trainer, images, budget, tracker
        self.seconds_before, self.choice, self.facts = progress.seconds, progress.choice, facts
        self.monitor = DivergenceMonitor(trainer.config.loss, progress.counts)
        self.rows: list[dict[str, float]] = []  # since divergence was last looked for
        self.started = self.saved = time.monotonic()
        self.evaluated = self._evaluations_due()

    @property
    def seconds(self) -> float:
        """Training time over all resumes."""
        return self.seconds_before + time.monotonic() - self.started

    def run(self) -> float:
        """Returns the seconds of training over all resumes.

        Raises KeyboardInterrupt, after a checkpoint, when a signal asks to stop, and UserError
        when training diverges.
        """
        trainer, processes = self.trainer, self.trainer.processes
        if processes.is_rank0:
            save_grid(self.budget.path / "samples" / "reals.png", self.images.first(GRID**2), GRID)
        with stop_request() as stop, self._bar() as bar:
            order = processes.rank0_decides(STOP if self._finished() else GO_ON)
            while order != STOP:
                trainer.step(*self._batch())
                self._show(bar)
                self._record()
                order = processes.rank0_decides(self._order(stop))
                if order == SAVE:
                    self._checkpoint()
            if self._finished() and not stop.requested:
                self._evaluate()
            if trainer.images_seen:
                self._checkpoint()
                kimg = f"{trainer.images_seen / 1000:.1f} kimg"
                stop.message = (
                    f"checkpoint at {kimg} written; {self.budget.go_on} goes on from there"
                )
        if trainer.images_seen and processes.is_rank0:
            self._sample()
        return self.seconds

    def _finished(self) -> bool:
        return self._spent() >= 1

    def _spent(self) -> float:
        """The share of the budget that is spent; may be above 1."""
        budget = self.budget
        if budget.kimg is not None:
            return self.trainer.images_seen / (budget.kimg * 1000)
        assert budget.minutes is not None
        return self.seconds / (budget.minutes * 60)

    def _order(self, stop: StopRequest) -> int:
        if stop.requested or self._finished():
            return STOP
        return SAVE if time.monotonic() - self.saved >= CHECKPOINT_SECONDS else GO_ON

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        trainer = self.trainer
        ranks = trainer.processes.rank, trainer.processes.count
        images, labels = self.images.batch(trainer.steps, trainer.images_a_step, *ranks)
        conditional = trainer.config.classes > 0
        return images, labels if conditional else None

    def _record(self) -> None:
        trainer, step = self.trainer, self.trainer.steps
        if step == 1 or step % LOG_STEPS == 0:
            acted = trainer.ada.acts
            means = trainer.take_means(_steps_since_row(step))
            if trainer.ada.acts and not acted and trainer.processes.is_rank0:
                print(
                    f"note: after {trainer.images_seen / 1000:.1f} kimg the discriminator learns "
                    "its images by heart: from here on they are changed more (ADA)"
                )
            self.rows.append(means)
            if self.tracker is not None:
                if step % WATCHED_STEPS == 0:
                    self._check_divergence(_mean_row(self.rows))
                    self.rows = []
                times = {"kimg": trainer.images_seen / 1000, "seconds": round(self.seconds, 1)}
                self.tracker.log(step, **times, **means)
        if self.tracker is None:
            return
        if _grid_due(trainer.images_seen, trainer.images_a_step):
            self._sample()
        self._evaluate()

    def _evaluations_due(self) -> int:
        """How many scores the budget that is spent has room for."""
        return int(min(self._spent(), 1) * self.budget.evaluations)

    def _evaluate(self) -> None:
        """Score the generator where that is due, and keep it if it is the one to ship."""
        due = self._evaluations_due()
        if self.tracker is None or self.budget.score is None or due <= self.evaluated:
            return
        self.evaluated = due
        trainer = self.trainer
        score = self.budget.score(trainer.ema, trainer.images_seen / 1000)
        kept = self.choice.consider(trainer.ema, score)
        name = "kid_imagenet" if "imagenet" in score.network else "kid_diagnosis"
        found = {name: score.kid, "kept": float(kept)}
        seconds = round(self.seconds, 1)
        self.tracker.log(trainer.steps, kimg=score.kimg, seconds=seconds, **found)

    def _check_divergence(self, means: dict[str, float]) -> None:
        complaint = self.monitor.complaint(means)
        if complaint is None:
            return
        sentence = f"training diverged before step {self.trainer.steps}: {ADVICE[complaint]}"
        if not self.budget.stop_when_bad and complaint != "not a number":
            print(f"warning: {sentence}")
            return
        raise UserError(
            f"{sentence}. The last good checkpoint is in {self.budget.path / CHECKPOINT}"
        )

    def _sample(self) -> None:
        """Pictures of the same latents (and labels, in turn) at every time."""
        path = self.budget.path / "samples" / f"{self.trainer.images_seen:08d}.png"
        rng = generator(self.budget.seed, "gan/samples")
        z = rng.standard_normal((GRID**2, self.trainer.ema.latent_dim), np.float32)
        device, classes = self.trainer.compute.device, self.trainer.config.classes
        labels = torch.arange(GRID**2, device=device) % classes if classes else None
        with torch.no_grad(), self.trainer.compute.autocast():
            images = self.trainer.ema(torch.from_numpy(z).to(device), labels)
        save_grid(path, to_uint8(images), GRID)
        if self.tracker is not None:
            self.tracker.image(self.trainer.steps, "samples", path)

    def _checkpoint(self) -> None:
        state = self.trainer.state()  # together: it may exchange between the processes
        self.saved = time.monotonic()
        if not self.trainer.processes.is_rank0:
            return
        if not self.trainer.is_finite():
            raise UserError(
                f"training diverged before step {self.trainer.steps}: "
                f"{ADVICE['not a number']}. The last good checkpoint is in "
                f"{self.budget.path / CHECKPOINT}"
            )
        done = {"seconds": self.seconds, "counts": self.monitor.counts}
        done["choice"] = self.choice.state()
        checkpoint.save(self.budget.path / CHECKPOINT, state | done | self.facts)

    def _bar(self) -> Any:
        budget, silent = self.budget, not self.trainer.processes.is_rank0
        if budget.kimg is not None:
            left = max(budget.kimg * 1000 - self.trainer.images_seen, 0)
            return progress_bar(left, "gan", "img", disable=silent)
        assert budget.minutes is not None
        left = max(budget.minutes * 60 - self.seconds_before, 0)
        layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        return progress_bar(left, "gan", "s", bar_format=layout, disable=silent)

    def _show(self, bar: Any) -> None:
        if self.budget.kimg is not None:
            bar.update(self.trainer.images_a_step)
            return
        rate = self.trainer.images_seen / self.seconds
        bar.set_postfix_str(f"{rate:.1f} img/s, {self.trainer.images_seen / 1000:.1f} kimg", False)
        bar.update(min(self.seconds - self.seconds_before, bar.total) - bar.n)


def _steps_since_row(step: int) -> int:
    """How many steps the row of a step is about."""
    before = (step - 1) // LOG_STEPS * LOG_STEPS
    return step - (before or min(step - 1, 1))


def _mean_row(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of what all rows have."""
    names = [name for name in rows[-1] if all(name in row for row in rows)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def _grid_due(seen: int, step: int) -> bool:
    """At 1, 2, 4, 8, ... thousand images."""
    kimg, before = seen // 1000, (seen - step) // 1000
    return kimg > 0 and kimg.bit_length() > before.bit_length()
