"""What a finished download tells W&B or TensorBoard: files with their hashes, and their licence."""

from data.transfer.dataset import RECORD
from data.transfer.published import DownloadOptions
from data.transfer.records import VERSION, DownloadRecord
from dermsynth.manifest import identify
from dermsynth.records import read_record
from dermsynth.tracked import About, config_of
from dermsynth.tracking import Report, harmless


@harmless
def track_download(options: DownloadOptions) -> None:
    """A run of the folder that is complete; of its files only names, sizes and hashes are told."""
    out = options.out
    record = read_record(out / RECORD, DownloadRecord, "fetch it again", VERSION)
    files = sorted(record.files.items())
    labels = {"source": record.source}
    about = About("data", config_of(options), f"download-{record.source}", labels)
    with Report(out, options.tracking, about) as report:
        columns = ("file", "bytes", "sha256", "url")
        report.table(
            "downloaded", columns, [[n, got.bytes, got.sha256, got.url] for n, got in files]
        )
        facts = {"files": len(files), "bytes": sum(got.bytes for _, got in files)}
        report.summary(**facts, licence=record.licence)
        made = identify("download", {name: got.sha256 for name, got in files}, {})
        report.made(made, folder=str(out), source=record.source, **facts)
