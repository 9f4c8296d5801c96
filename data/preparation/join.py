"""Several listings into one: which rows stay, which contradict, and what an external row may be."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from data.images.files import Encoded
from data.preparation.options import ConflictPolicy
from data.sources.listing import Fault, Listing
from data.sources.targets import check_one_meaning
from data.store import MELANOMA, TargetMeaning
from dermsynth.errors import UserError, counted, some


@dataclass(frozen=True)
class JoinedListing:
    """One row an image: the first source's in order of image_id, then each external one's."""

    table: pd.DataFrame  # as Listing.table, plus `external` bool
    files: list[Encoded | None]
    faults: list[Fault]  # rows that were left out because something is wrong with them
    same: np.ndarray  # int64 [m, 2], rows that a source declares duplicates
    dropped: dict[str, list[str]]  # image ids left out by a rule, by reason
    conflicts: list[dict[str, Any]]  # lesions whose images have both targets
    meaning: TargetMeaning = MELANOMA  # of the targets

    def keep(self, stay: np.ndarray, reason: str) -> "JoinedListing":
        """Without the rows where `stay` (bool [n]) is False; `reason` says why they went."""
        if stay.all():
            return self
        position = np.cumsum(stay) - 1
        gone = self.table["image_id"][~stay].tolist()
        return replace(
            self,
            table=self.table[stay].reset_index(drop=True),
            files=[file for file, kept in zip(self.files, stay, strict=True) if kept],
            same=position[self.same[stay[self.same].all(axis=1)]],
            dropped=self.dropped | {reason: [*self.dropped.get(reason, []), *gone]},
        )


def join(listings: list[tuple[str, Listing]]) -> JoinedListing:
    """Join the listings of (source, listing); the first is split, the others are external.

    External rows without a label, and external images that the first source has under the same
    image_id, are left out. Ids that mean something only within their own source get its name in
    front, so that patient 7 of one clinic is not patient 7 of another. Raises UserError where the
    targets of two sources mean different things.
    """
    tables, files, faults, same, start = [], [], [], [], 0
    for number, (name, listing) in enumerate(listings):
        table = listing.table.assign(external=number > 0)
        if len(listings) > 1 and not listing.global_ids:
            for column in ("image_id", "patient_id", "lesion_id"):
                known = table[column].notna()
                table[column] = (f"{name}-" + table[column].astype(str)).where(known, None)
        tables.append(table)
        files += listing.files
        faults += listing.faults
        same.append(listing.same + start)
        start += len(table)
    table = pd.concat(tables, ignore_index=True)
    meaning = check_one_meaning([(name, one.table, one.meaning) for name, one in listings])
    joined = JoinedListing(table, files, faults, np.concatenate(same), {}, [], meaning)
    external = table["external"].to_numpy()
    unlabelled = external & table["target"].isna().to_numpy()
    joined = joined.keep(~unlabelled, "external image without a label")
    again = joined.table["image_id"].duplicated().to_numpy()
    return joined.keep(~again, "external image that an earlier source has")


def settle(joined: JoinedListing, policy: ConflictPolicy) -> JoinedListing:
    """Apply `policy` to lesions whose images are both malignant and benign.

    `fail` raises UserError naming them; `keep` leaves every image its own target; `malignant` makes
    all images of such a lesion malignant; `drop` leaves the lesion out. What was found is recorded.
    """
    table = joined.table
    both = table.groupby("lesion_id")["target"].transform("nunique") > 1
    if not both.any():
        return joined
    conflicts = [
        {
            "lesion_id": name,
            "malignant": rows.loc[rows["target"] == 1, "image_id"].tolist(),
            "benign": rows.loc[rows["target"] == 0, "image_id"].tolist(),
        }
        for name, rows in table[both].groupby("lesion_id")
    ]
    if policy == "fail":
        shown = [
            f"{lesion['lesion_id']} ({lesion['malignant'][0]} malignant, "
            f"{lesion['benign'][0]} benign)"
            for lesion in conflicts
        ]
        raise UserError(
            f"{counted(len(shown), 'lesion has', 'lesions have')} images of both targets: "
            f"{some(shown)}; mend the labels, or choose what they count as: "
            "--conflicts malignant, drop, or keep (each its own)"
        )
    settled = replace(joined, conflicts=conflicts)
    if policy == "malignant":
        target = table["target"].mask(both & table["target"].notna(), 1.0)
        return replace(settled, table=table.assign(target=target))
    if policy == "drop":
        return settled.keep(~both.to_numpy(), "lesion with conflicting targets")
    return settled
