"""What a pool of phantom images tells W&B or TensorBoard."""

from data.phantom.config import PhantomPoolOptions
from data.pool import Pool
from dermsynth.tracked import About, config_of
from dermsynth.tracking import Report, harmless, sheet


@harmless
def track_phantom_pool(options: PhantomPoolOptions, pool: Pool) -> None:
    """A run of the finished pool: a sample of its images, and its content id."""
    count, labels = len(pool.images), {"quality": options.quality, "seed": options.seed}
    about = About("pool", config_of(options), f"pool-{options.quality}", labels)
    with Report(pool.path, options.output.tracking, about) as report:
        report.image(0, "samples", sheet(pool.images))
        report.summary(images=count, size=options.size)
        report.made(pool.identity, images=count, folder=str(pool.path))
