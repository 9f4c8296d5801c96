"""What is predicted: target 1 or not, or the diagnosis; the target is read off either."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from classifier.options import TargetName
from data.store import Dataset, TargetMeaning
from dermsynth.errors import UserError

UNKNOWN = -1  # the label of an image whose class is not known, or not among those trained on
UNNAMED = TargetMeaning()  # malignant or not: what a dataset means that does not say
NOT_A_DIAGNOSIS = ("", "unk", "unknown")


@dataclass(frozen=True)
class Target:
    """The classes and which of them are target 1; here and elsewhere in code "malignant".

    `binary` has the classes benign and malignant and one logit, `diagnosis` a logit a class. What
    target 1 and 0 are called where people read it, says `meaning`.
    """

    name: TargetName
    classes: tuple[str, ...]
    malignant: tuple[bool, ...]
    meaning: TargetMeaning = UNNAMED

    @property
    def outputs(self) -> int:
        """Logits of the model."""
        return 1 if self.name == "binary" else len(self.classes)

    def labels(self, table: pd.DataFrame) -> np.ndarray:
        """Class of each row, int64 [n], UNKNOWN where there is none."""
        if self.name == "binary":
            return table["target"].astype("Int64").fillna(UNKNOWN).to_numpy(np.int64)
        number = {name: at for at, name in enumerate(self.classes)}
        return table["diagnosis"].map(number).fillna(UNKNOWN).to_numpy(np.int64)

    def matrix(self, labels: np.ndarray) -> np.ndarray:
        """What the logits are compared with, float32 [n, outputs]: 0/1, or one-hot."""
        if self.name == "binary":
            return labels[:, None].astype(np.float32)
        return np.eye(len(self.classes), dtype=np.float32)[labels]

    def probabilities(self, logits: torch.Tensor) -> np.ndarray:
        """float64 [n, classes] of logits [n, outputs]."""
        logits = logits.double()
        if self.name == "binary":
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        return torch.softmax(logits, 1).cpu().numpy()

    def scores(self, probabilities: np.ndarray) -> np.ndarray:
        """Probability of target 1, float64 [n], of probabilities [n, classes]."""
        return probabilities[:, np.array(self.malignant)].sum(1)


BINARY = Target("binary", ("benign", "malignant"), (False, True))


def target_of(dataset: Dataset, fold: int, name: TargetName) -> Target:
    """The classes of a fold's training part, and what the dataset says of its target.

    Raises UserError where the diagnoses are missing, are fewer than two, or do not say whether an
    image is malignant.
    """
    meaning = dataset.info.target
    if name == "binary":
        return replace(BINARY, meaning=meaning)
    table = dataset.table.iloc[dataset.rows("train", fold)]
    known = table[table["diagnosis"].notna() & ~table["diagnosis"].isin(NOT_A_DIAGNOSIS)]
    malignant = known.groupby("diagnosis")["target"].agg(["min", "max"]).astype(bool)
    if len(malignant) < 2:
        raise UserError(
            f"--target diagnosis: the training part of {dataset.path} has "
            f"{len(malignant)} diagnoses; expected two or more, or use --target binary"
        )
    both = malignant.index[malignant["min"] != malignant["max"]].tolist()
    if both:
        raise UserError(
            f"--target diagnosis: images of {dataset.path} with the diagnosis {both[0]} are partly "
            f"{meaning.one} and partly {meaning.zero}; prepare it with another --positive, or use "
            "--target binary"
        )
    classes = tuple(sorted(malignant.index))
    positive = tuple(bool(malignant["min"][c]) for c in classes)
    return Target("diagnosis", classes, positive, meaning)
