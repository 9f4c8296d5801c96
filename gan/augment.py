"""What the discriminator sees: DiffAugment on real and fake, true symmetries of the real.

DiffAugment (Zhao et al. 2020): the same kinds of random, differentiable changes of real and fake
images, so that the discriminator cannot learn the few real ones by heart. Every change is a tensor
operation of fixed shape (translation is a product with shifted identities), so that nothing
recompiles on accelerators and no gradient goes through slow indexing.
"""

import torch

from gan.ada import DRAWS as ADA_DRAWS
from gan.ada import ada
from gan.hyperparameters import Augment

DRAWS = 7  # uniform numbers that one image's changes take
BRIGHTNESS, SATURATION, CONTRAST = 0.2, 1.0, 0.5  # reach, for images in -1..1
SHIFT, CUTOUT = 0.125, 0.5  # shares of the side


def augmented(images: torch.Tensor, how: Augment, ada_p: torch.Tensor | None) -> torch.Tensor:
    """Float [n, 3, s, s] images in -1..1 as the discriminator sees them; same shape back.

    `ada_p`: ADA's probability, a scalar tensor, where it acts (gan.ada); None: it does not.
    """

    def draws(count: int) -> torch.Tensor:
        return torch.rand(len(images), count, device=images.device)

    if how == "diffaugment":
        return diff_augment(images, draws(DRAWS))
    if how in ("translation", "adaptive"):
        images = translate(images, draws(2))
    return images if ada_p is None else ada(images, ada_p, draws(ADA_DRAWS))


def diff_augment(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Colour, translation and cutout of float [n, 3, s, s] images in -1..1.

    `draws` float [n, DRAWS], uniform in 0..1, decide everything. Same shape back; differentiable
    in `images`. What is cut out becomes 0, mid-grey. What translation uncovers repeats the rim: the
    paper's mid-grey lets a generator frame its images in grey unpunished.
    """
    columns = draws.view(-1, DRAWS, 1, 1, 1).unbind(1)
    images = _colour(images, *columns[:3])
    images = _translate(images, *draws[:, 3:5].unbind(1))
    return _cutout(images, *draws[:, 5:7].unbind(1))


def translate(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Of `diff_augment` the translation alone: `draws` float [n, 2], uniform in 0..1."""
    return _translate(images, *draws.unbind(1))


def _colour(
    x: torch.Tensor, brightness: torch.Tensor, saturation: torch.Tensor, contrast: torch.Tensor
) -> torch.Tensor:
    x = x + (brightness - 0.5) * (2 * BRIGHTNESS)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (1 + (saturation - 0.5) * (2 * SATURATION))
    level = x.mean((1, 2, 3), keepdim=True)
    return level + (x - level) * (1 + (contrast - 0.5) * (2 * CONTRAST))


def _translate(x: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    side = x.shape[-1]
    reach = int(side * SHIFT)
    rows, columns = (_shifts(draw, reach, side)[:, None] for draw in (down, right))
    return rows @ x @ columns.transpose(-1, -2)


def _shifts(draws: torch.Tensor, reach: int, side: int) -> torch.Tensor:
    """[n] draws -> [n, side, side] 0/1 matrices that shift by -reach..reach whole pixels."""
    offset = (draws * (2 * reach + 1)).long().clamp(max=2 * reach) - reach
    index = torch.arange(side, device=draws.device)
    source = (index - offset[:, None]).clamp(0, side - 1)
    return (source[:, :, None] == index).to(draws.dtype)


def _cutout(x: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A grey square whose centre lies anywhere in the image; it may stick out."""
    side = x.shape[-1]
    index = torch.arange(side, device=x.device)
    half = int(side * CUTOUT) // 2
    rows, columns = (
        (index[None] - (draw * side).long()[:, None] + half).div(2 * half, rounding_mode="floor")
        == 0
        for draw in (down, right)
    )
    return x * ~(rows[:, None, :, None] & columns[:, None, None, :])
