"""AUCs of averaged trainings under resampling of groups, kept for arms that are compared twice."""

from collections.abc import Sequence

import numpy as np

from dermsynth import seeds
from dermsynth.group_bootstrap import count_pairs, estimates, group_draws
from experiments.statistics.trainings import Images, Trainings
from experiments.statistics.variance import fold_weights, strata


class Resamples:
    """Replicates of mean AUCs; groups are drawn within each set of images, alike for all arms."""

    def __init__(self, replicates: int = 9999, seed: int = 0) -> None:
        self.replicates, self.seed = replicates, seed
        self._kept: dict[tuple, tuple] = {}
        self._drawn: dict[tuple[int, int], list[np.ndarray]] = {}

    def differences(self, folds: Sequence[Trainings]) -> np.ndarray:
        """Sorted replicates of the mean AUC difference, float64 [<= replicates].

        Those in which a set of images lost a class are left out.
        """
        weights, total = fold_weights(folds), np.zeros(self.replicates)
        for number, (images, members) in enumerate(strata(folds)):
            for member in members:
                fold = folds[member]
                of_arm, of_reference = fold.times()
                arm = self._auc(images, fold.arm, of_arm, number)
                total += weights[member] * (
                    arm - self._auc(images, fold.reference, of_reference, number)
                )
        return np.sort(total[np.isfinite(total)])

    def _auc(
        self, images: Images, scores: np.ndarray, times: np.ndarray, number: int
    ) -> np.ndarray:
        """Replicates of the mean AUC of models that count `times` each, float64 [replicates]."""
        key = (id(images), id(scores), times.tobytes(), number)
        if key not in self._kept:
            used = times > 0
            pairs = count_pairs(images.target, images.group, scores[used], times[used])
            blocks = self._draws(images, number)
            drawn = np.concatenate([estimates(pairs, block.astype(np.float32)) for block in blocks])
            self._kept[key] = (drawn, images, scores)  # objects that live keep their id
        return self._kept[key][0]

    def _draws(self, images: Images, number: int) -> list[np.ndarray]:
        """How often each group is drawn: uint16 [<= replicates, groups] blocks."""
        if (key := (images.groups.n_groups, number)) not in self._drawn:
            seed = seeds.derive(self.seed, "images", number) if number else self.seed
            draws = group_draws(images.groups.n_groups, self.replicates, seed)
            self._drawn[key] = [block.astype(np.uint16) for block in draws]
        return self._drawn[key]
