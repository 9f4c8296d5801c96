"""ADA: augmentation as strong as the discriminator's overfitting asks for (Karras et al. 2020a).

"Training Generative Adversarial Networks with Limited Data": real and fake images are changed at
random before the discriminator sees them, each kind of change with probability p. While p stays
below about 0.8 the generator does not learn the changes. p follows the mean sign of the
discriminator's logits on real images, which rises as it learns the few training images by heart.

The kinds are those of the paper's `bgc`: pixel blitting, geometry and colour (its appendix B).
Here everything that moves pixels is one affine map, looked up bilinearly once, without the paper's
upsampling in between.
"""

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F

from dermsynth.distributed import Processes
from gan.hyperparameters import Hyperparameters
from gan.losses import Heads

ADAPTIVE = ("ada", "adaptive")  # augmentations with a p that follows the discriminator
STEPS = 4  # between two changes of p
TAKES_OVER = 0.02  # p from which "adaptive" changes images; below, it would cost time
# Standard deviations and reaches of appendix B
SHIFT = 0.125  # of the side: the farthest translation by whole pixels
SCALE = ANISOTROPY = 0.2  # of the binary logarithm
FRACTION = 0.125  # of the side: translation by parts of pixels
BRIGHTNESS = 0.2  # for images in -1..1
CONTRAST, SATURATION = 0.5, 1.0  # of the binary logarithm

COINS = 13  # kinds of changes: 8 that move pixels, 5 that colour them
DRAWS = COINS + 15  # uniform numbers that one image's changes take


def ada(images: torch.Tensor, p: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Change float32 [n, 3, s, s] images in -1..1; same shape back, differentiable in `images`.

    `p` is a scalar tensor on the device of the images, the probability of each kind of change;
    `draws` float32 [n, DRAWS], uniform in 0 <= u < 1, decide everything. Shapes are fixed and
    nothing waits for the device. Outside of an image lies its reflection. Values may leave -1..1.
    With p = 0 every image comes back as it was, up to rounding.
    """
    coins, draws = draws[:, :COINS], draws[:, COINS:]
    grid = F.affine_grid(_geometry(coins, p, draws, images.shape[-1]), images.shape, False)
    images = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
    matrix, offset = _colour(coins, p, draws)
    return torch.baddbmm(offset, matrix, images.flatten(2)).view_as(images)


def adjust(
    p: torch.Tensor,
    sign_mean: torch.Tensor,
    batch: int,
    target: float = 0.6,
    ada_kimg: float = 500.0,
) -> torch.Tensor:
    """The next p, a tensor on the same device (equation 1, r_t; appendix D).

    Parameters
    ----------
    p : the probability now
    sign_mean : mean sign of the logits of real images since the last change
    batch : how many real images that were
    target : p takes a step up where the sign exceeds it, else down
    ada_kimg : thousand images in which p would go from 0 to 1
    """
    return (p + torch.sign(sign_mean - target) * (batch / (ada_kimg * 1000))).clamp(0, 1)


class AdaptiveP:
    """p, a scalar tensor, as a training's discriminator moves it; never waits for the device.

    `acts`: whether images are changed by it. "ada" always does, "adaptive" once p is large enough.
    """

    def __init__(self, config: Hyperparameters, device: torch.device) -> None:
        self.config, self.device = config, device
        self.p = torch.zeros((), device=device)
        self._signs = torch.zeros((), device=device)  # mean since the last change of p
        self.acts = config.augment == "ada"

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that moves on the device."""
        return [self.p, self._signs]

    def is_due(self, step: int) -> bool:
        """Whether p moves at the end of a step."""
        return self.config.augment in ADAPTIVE and step % STEPS == STEPS - 1

    def note(self, on_real: Heads, share: int) -> None:
        """Take note of the logits of one of `share` equal parts of a step's real images."""
        if self.config.augment in ADAPTIVE:
            signs = [head.detach().float().sign().mean() for head in on_real]
            self._signs += torch.stack(signs).mean() / (share * STEPS)

    def move(self, images_a_step: int, processes: Processes) -> None:
        """Towards the target."""
        processes.mean_([self._signs])
        images, config = STEPS * images_a_step, self.config
        p = adjust(self.p, self._signs, images, config.ada_target, config.ada_kimg)
        self.p.copy_(p)
        self._signs.zero_()

    def read(self) -> float:
        """p now, from which it follows whether it acts from here on. Waits for the device."""
        p = float(self.p)
        self.acts = self.config.augment == "ada" or p >= TAKES_OVER
        return p

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"ada_p": self.p, "ada_signs": self._signs, "ada_acts": self.acts}

    def restore(self, state: dict[str, Any]) -> None:
        """As `state` had it."""
        self.p, self._signs = (state[name].to(self.device) for name in ("ada_p", "ada_signs"))
        self.acts = state["ada_acts"]


def _geometry(coins: torch.Tensor, p: torch.Tensor, draws: torch.Tensor, side: int) -> torch.Tensor:
    """[n, 2, 3]: where in the image, in -1..1, every place of the result is looked up."""
    flips, turns, shifts, scales, rotates, stretches, rotates_again, slides = (
        coins[:, :8] < _rotations_apart(p)
    ).unbind(1)
    flip, turn, right, down, scale, angle, stretch, angle_again, x, y = draws[:, :10].unbind(1)
    right, down = (((2 * u - 1) * SHIFT * side).round() * (2 / side) for u in (right, down))
    x, y = (2 * FRACTION * _normal(u) for u in (x, y))
    scale, stretch = torch.exp2(SCALE * _normal(scale)), torch.exp2(ANISOTROPY * _normal(stretch))
    scale, stretch = torch.where(scales, scale, 1.0), torch.where(stretches, stretch, 1.0)
    maps = (
        _scale(torch.where(flips, 1 - 2 * (2 * flip).floor(), 1.0), torch.ones_like(flip)),
        _rotate(turns * (4 * turn).floor() * (math.pi / 2)),
        _translate(shifts * right, shifts * down),
        _scale(scale, scale),
        _rotate(rotates * (2 * angle - 1) * math.pi),
        _scale(stretch, 1 / stretch),
        _rotate(rotates_again * (2 * angle_again - 1) * math.pi),
        _translate(slides * x, slides * y),
    )
    return functools.reduce(torch.matmul, maps)[:, :2]


def _rotations_apart(p: torch.Tensor) -> torch.Tensor:
    """The probabilities [8] of the moves: two rotations share theirs, p is that of any."""
    half = 1 - (1 - p).sqrt()
    return torch.stack([p, p, p, p, half, p, half, p])


def _colour(
    coins: torch.Tensor, p: torch.Tensor, draws: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices [n, 3, 3] and offsets [n, 3, 1] of the colours.

    The paper's product of five 4x4 matrices, multiplied out: brightness shifts along the grey axis,
    the luma flip mirrors it, hue and saturation turn and stretch the plane across it, contrast
    scales all.
    """
    brightens, contrasts, inverts, tints, saturates = (coins[:, 8:] < p).unbind(1)
    bright, contrast, invert, hue, saturation = draws[:, 10:, None, None].unbind(1)
    bright = brightens[:, None, None] * BRIGHTNESS * _normal(bright)
    contrast = torch.exp2(contrasts[:, None, None] * CONTRAST * _normal(contrast))
    luma = contrast * (1 - 2 * inverts[:, None, None] * (2 * invert).floor())
    hue = tints[:, None, None] * (2 * hue - 1) * math.pi
    chroma = contrast * torch.exp2(saturates[:, None, None] * SATURATION * _normal(saturation))
    grey = draws.new_full((3, 3), 1 / 3)  # projects onto the grey axis
    across = torch.eye(3, device=draws.device) - grey
    quarter = (across.roll(1, 0) - across.roll(-1, 0)) / math.sqrt(3)  # turns across it by 90
    matrix = luma * grey + chroma * (hue.cos() * across + hue.sin() * quarter)
    return matrix, (luma * bright).expand(-1, 3, -1)


def _normal(uniform: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers from uniform ones; never infinite."""
    return torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))


def _scale(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros_like(x)
    return _affine(x, zero, zero, y, zero, zero)


def _rotate(angle: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros_like(angle)
    return _affine(angle.cos(), -angle.sin(), angle.sin(), angle.cos(), zero, zero)


def _translate(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _affine(one, zero, zero, one, x, y)


def _affine(*entries: torch.Tensor) -> torch.Tensor:
    """[n] entries xx, xy, yx, yy, x, y -> homogeneous [n, 3, 3]."""
    xx, xy, yx, yy, x, y = entries
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return torch.stack([xx, xy, x, yx, yy, y, zero, zero, one], 1).unflatten(1, (3, 3))
