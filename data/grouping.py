"""By which ids the images of a dataset are tied together, and what that leaves unknown.

Groups keep a patient or a lesion on one side of every split only where an id says whose an image
is. Without ids only near-duplicates are found, and another shot of one lesion rarely is one.
"""

import pandas as pd

from dermsynth.records import Record

MEND = (
    "a CSV with a patient_id or a lesion_id for every image keeps them together: --source folder "
    "--table FILE (--group-column NAME, where the column is called otherwise)"
)


class Grouping(Record):
    """How many images have which id: of those that are in a part, or of all that are scored."""

    images: int = 0
    with_patient: int = 0
    with_lesion: int = 0
    with_neither: int = 0

    @property
    def lesion_alone(self) -> int:
        """Images with a lesion id and no patient id."""
        return self.images - self.with_patient - self.with_neither

    @property
    def warning(self) -> str | None:
        """What images without any id mean, as a clause; None where every image has one."""
        if not self.with_neither:
            return None
        return (
            f"{self._of_all(self.with_neither)} neither a patient nor a lesion id: images of one "
            "lesion may lie in training and in test; the scores may be too high"
        )

    @property
    def note(self) -> str | None:
        """What images with a lesion id alone mean, as a clause; None where there are none."""
        if not self.lesion_alone:
            return None
        return (
            f"{self._of_all(self.lesion_alone)} a lesion id but no patient id: images of one "
            "patient may lie in training and in test"
        )

    def of_external(self, name: str) -> str | None:
        """What images without any id mean in an external test set; None where each has one."""
        if not self.with_neither:
            return None
        return (
            f"external set {name}: {self._of_all(self.with_neither)} neither a patient nor a "
            "lesion id: images of one lesion count as several lesions, so its intervals may be too "
            "narrow, and lesions of the training part are known by near-duplicates alone"
        )

    def _of_all(self, some: int) -> str:
        if some == self.images:
            return f"all {self.images:,} images have"
        return f"{some:,} of {self.images:,} images {'has' if some == 1 else 'have'}"


def known(column: pd.Series) -> pd.Series:
    """Where an id is there, bool [n]; "" is none."""
    return column.notna() & (column != "")


def count_ids(rows: pd.DataFrame) -> Grouping:
    """Which of these images have a `patient_id`, a `lesion_id`, neither; "" is none."""
    patient, lesion = (known(rows[column]) for column in ("patient_id", "lesion_id"))
    return Grouping(
        images=len(rows),
        with_patient=int(patient.sum()),
        with_lesion=int(lesion.sum()),
        with_neither=int((~patient & ~lesion).sum()),
    )
