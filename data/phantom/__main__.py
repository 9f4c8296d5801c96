"""Draw a pool of malignant phantom images, straight from the truth.

    python -m data.phantom --count 500 --seed 1 --quality oracle --out datasets/oracle

`oracle` is what a perfect GAN would make; `broken` is degraded, as by one that must never help.
"""

import shlex

from data.phantom.config import PhantomPoolOptions
from dermsynth import cli
from dermsynth.errors import counted


def main(options: PhantomPoolOptions) -> None:
    """Draw the pool and say what to do with it."""
    from data.phantom.sampling import write_phantom_pool  # imported here: --help does not wait

    pool = write_phantom_pool(options)
    print(
        f"wrote {counted(len(pool.images), f'{options.quality} image')} of {options.size} px to "
        f"{pool.path}"
    )
    path = shlex.quote(str(pool.path))
    cli.say_next(f"python -m classifier.train --synthetic 0.3 --pool {path}")


if __name__ == "__main__":
    cli.run(PhantomPoolOptions, main, "data.phantom", __doc__)
