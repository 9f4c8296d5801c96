"""Synthetic images from some other tool as a pool."""

import dataclasses

from data import pool, sources
from data.images.files import Encoded, escaped
from data.pool import Pool
from data.preparation.assemble import preprocessing
from data.preparation.checks import bytes_needed, check_space
from data.preparation.faults import judge, reasons, unreadable
from data.preparation.ingest import FORM, fingerprint, forget, ingest
from data.preparation.options import PrepareOptions
from data.provenance import PoolRecord, Provenance
from dermsynth.cli import save_options
from dermsynth.errors import counted
from dermsynth.folders import whole_folder


def prepare_pool(options: PrepareOptions) -> Pool:
    """Decode the images below `options.input.root` into a pool. Raises UserError."""
    roots, out = options.input.root, options.out
    (root,) = roots
    sources.check_root("pool", root)
    files = sources.list_pool(root)
    names = [escaped(path.relative_to(root)) for path in files]
    encoded: list[Encoded | None] = [Encoded(path) for path in files]
    how = preprocessing(options)
    check_space(bytes_needed(encoded, how), options)
    provenance = Provenance(
        kind="declared" if options.provenance else "unknown", statement=options.provenance
    )
    key = fingerprint({"form": FORM, "look": dataclasses.asdict(how)}, names, encoded)
    with whole_folder(out, pool.KIND, options.output.overwrite, key) as folder:
        ingested = ingest(folder, names, encoded, how, roots=roots)
        faults = unreadable(ingested.bad, names, encoded, roots)
        judge(faults, len(files), roots, options.labels.on_error)
        dropped = reasons(faults)
        if len(ingested.copies):
            copies = [names[row] for row in ingested.copies["row"]]
            dropped |= {"byte-identical to another image": copies}
        save_options(options, folder)
        forget(folder, pixels_too=False)
        pool.seal_pool(
            folder,
            PoolRecord(
                count=len(ingested.kept), size=how.size, provenance=provenance, dropped=dropped
            ),
        )
    gone = sum(map(len, dropped.values()))
    print(
        f"{out}: pool of {counted(len(ingested.kept), 'image')} of {how.size} px, "
        f"{counted(gone, 'file')} dropped"
    )
    if not options.provenance:
        print(
            'provenance unknown: the classifier refuses it; declare it with --provenance "TEXT" '
            "if no image was made from validation or test images"
        )
    return pool.load_pool(out)
