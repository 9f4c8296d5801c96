"""The phantom as a dataset: drawn, then grouped and split like any other."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from data import store
from data.images.decoding import perceptual_hash
from data.phantom.config import PhantomConfig
from data.phantom.sampling import sample_dataset, sample_table
from data.preparation import assemble
from data.preparation.checks import check_enough, check_space
from data.preparation.ingest import IngestResult
from data.preparation.join import JoinedListing
from data.preparation.options import PrepareOptions
from data.store import MELANOMA, Dataset, load_dataset
from dermsynth.folders import whole_folder
from dermsynth.machine import check_memory


def prepare_phantom(options: PrepareOptions) -> Dataset:
    """Draw the phantom into `options.out`. Raises UserError before anything is drawn."""
    size, seed, out = int(options.pixels.size), options.split.seed, options.out
    config = PhantomConfig(**vars(options.phantom), size=size)
    drawn = sample_table(config, seed)  # cheap: what is wrong shows before the drawing
    check_enough(drawn, options.split, MELANOMA.words)
    need = len(drawn) * size * size * 3
    check_space(need, options)
    check_memory(need, f"--patients {config.patients}: images", "lower --patients or --size")
    with whole_folder(out, store.KIND, options.output.overwrite) as folder:
        _draw(folder, config, options)
    dataset = load_dataset(out)
    assemble.print_summary(out, dataset.info)
    return dataset


def _draw(folder: Path, config: PhantomConfig, options: PrepareOptions) -> None:
    images, table, facts = sample_dataset(config, options.split.seed)
    table = table.assign(source="phantom", external=False, target=table["target"].astype(float))
    kept = pd.DataFrame(
        {
            "row": np.arange(len(table)),
            "width": config.size,
            "height": config.size,
            "sha256": [hashlib.sha256(image.tobytes()).hexdigest() for image in images],
            "phash": [perceptual_hash(image) for image in images],
        }
    )
    ingested = IngestResult(kept)
    joined = JoinedListing(table, [], [], np.empty((0, 2), np.int64), {}, [])
    store.save_images(folder, images)
    said = facts | {"licence": "none needed: drawn here", "drawn": len(images)}
    pairs = assemble.pair_up(joined, ingested, images, None)
    assemble.finish(folder, joined, ingested, pairs, options, said, [])
