"""Is a training still worth its time? Looks at the rows of metrics.jsonl as they come."""

import math

PATIENCE = 20  # rows in a row that must look bad
CLOSE_TO_ZERO = 0.01  # a discriminator's loss below this leaves the generator nothing to learn
BOUNDED_LOSSES = ("hinge", "non-saturating", "relativistic")  # whose 0 means: always right
COLLAPSED = 0.1  # diversity below this: images of a batch are all but the same

ADVICE = {
    "not a number": "a loss is not a number any more; start again with --precision fp32, a larger "
    "--batch, lower rates (--recipe lr_generator=1e-4 --recipe lr_discriminator=1e-4) or another "
    "--seed",
    "discriminator wins": "the discriminator tells every real image from every fake one, so that "
    "the generator has nothing to follow; lower its rate (--recipe lr_discriminator=1e-4), hold "
    "its gradient down (--recipe penalty=r1 --recipe penalty_weight=1) or give it more images",
    "collapse": "the generator makes one and the same image; try a larger --batch, a lower rate "
    "(--recipe lr_generator=1e-4), a narrower generator or another --seed",
}


class DivergenceMonitor:
    """Counts rows that look bad, one after the other; `counts` is all of its state."""

    def __init__(self, loss: str, counts: dict[str, int] | None = None) -> None:
        self.loss = loss
        self.counts = counts or {"discriminator wins": 0, "collapse": 0}

    def complaint(self, row: dict[str, float]) -> str | None:
        """A key of ADVICE once something has been wrong for PATIENCE rows (a number: at once).

        `row`: `loss_d` and `diversity`, the spread of a batch of fakes over that of reals.
        """
        if not all(math.isfinite(value) for value in row.values()):
            return "not a number"
        bad = {
            "discriminator wins": self.loss in BOUNDED_LOSSES and row["loss_d"] < CLOSE_TO_ZERO,
            "collapse": row["diversity"] < COLLAPSED,
        }
        self.counts = {what: self.counts[what] + 1 if bad[what] else 0 for what in bad}
        return next((what for what in bad if self.counts[what] == PATIENCE), None)
