"""Generator against discriminator: one optimizer step, and all of its state."""

from typing import Any

import torch
from torch import nn

from gan.augment import DRAWS, diff_augment
from gan.losses import discriminator_loss, generator_loss
from gan.networks import architecture
from runtime.device import Compute
from runtime.seeds import seed_torch

EMA_SHARE = 0.1  # half-life of the generator's average, as a share of the images seen so far
EMA_KIMG = 10.0  # and at most this many thousand images, as in StyleGAN2-ADA
MEASURED = ("loss_d", "loss_g", "score_real", "score_fake")


class Game:
    """Both networks, the generator's moving average (EMA), both optimizers, the step count.

    Randomness depends on (seed, step) only, so `state`, saved after any step, is all that an exact
    resume needs.
    """

    def __init__(self, arch: str, config: Any, batch: int, seed: int, compute: Compute) -> None:
        parts = architecture(arch)
        seed_torch(seed, "gan/initial weights")
        self.batch, self.seed, self.compute, self.step = batch, seed, compute, 0
        self.generator = self._place(parts.generator(config))
        self.discriminator = self._place(parts.discriminator(config))
        self.ema = self._place(parts.generator(config)).eval().requires_grad_(False)
        self.ema.load_state_dict(self.generator.state_dict())
        self.generator_optimizer, self.discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), lr=lr, betas=config.betas)
            for network, lr in (
                (self.generator, config.lr_generator),
                (self.discriminator, config.lr_discriminator),
            )
        )
        self.sums = torch.zeros(len(MEASURED), device=compute.device)

    def play(self, real: torch.Tensor) -> None:
        """One step of each network on real uint8 [batch, size, size, 3].

        The generator learns from the same fakes as the discriminator, a generator pass saved.
        """
        seed_torch(self.seed, "gan/step", self.step)
        device = self.compute.device
        real = real.to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        z = torch.randn(self.batch, self.generator.latent_dim, device=device)
        with self.compute.autocast():
            fake = self.generator(z)
        seen = self._augment(real), self._augment(fake.detach())
        with self.compute.autocast():  # apart: batch norm must not mix them
            on_real, on_fake = (self.discriminator(images) for images in seen)
        loss_d = discriminator_loss(on_real, on_fake)
        _descend(self.discriminator_optimizer, loss_d)

        self.discriminator.requires_grad_(False)
        with self.compute.autocast():
            verdict = self.discriminator(self._augment(fake))
        loss_g = generator_loss(verdict)
        _descend(self.generator_optimizer, loss_g)
        self.discriminator.requires_grad_(True)

        self.step += 1
        self._average()
        with torch.no_grad():
            scores = (on_real[0].float().mean(), on_fake[0].float().mean())
            self.sums += torch.stack([loss_d, loss_g, *scores])
        self.compute.step()

    @property
    def seen(self) -> int:
        """Real images that the discriminator has seen."""
        return self.step * self.batch

    def networks(self) -> dict[str, nn.Module]:
        """The three networks by name."""
        return {"generator": self.generator, "discriminator": self.discriminator, "ema": self.ema}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Both optimizers by name."""
        return {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def take_means(self, steps: int) -> dict[str, float]:
        """Means of MEASURED over the last `steps` steps; starts over. Waits for the device."""
        means = (self.sums / steps).tolist()
        self.sums.zero_()
        return dict(zip(MEASURED, means, strict=True))

    def is_finite(self) -> bool:
        """False once a loss or a weight is not a number. Waits for the device."""
        tensors = [self.sums, *self.generator.parameters(), *self.discriminator.parameters()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def state(self) -> dict[str, Any]:
        """Everything that later steps depend on, for `runtime.checkpoint`."""
        parts = self.networks() | self.optimizers()
        states = {name: part.state_dict() for name, part in parts.items()}
        return states | {"step": self.step, "sums": self.sums}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        for name, part in (self.networks() | self.optimizers()).items():
            part.load_state_dict(state[name])
        self.step, self.sums = state["step"], state["sums"].to(self.compute.device)

    def _place(self, network: nn.Module) -> nn.Module:
        return network.to(self.compute.device, memory_format=torch.channels_last)

    def _augment(self, images: torch.Tensor) -> torch.Tensor:
        return diff_augment(images, torch.rand(len(images), DRAWS, device=images.device))

    @torch.no_grad()
    def _average(self) -> None:
        """Move the EMA, batch statistics included, towards the generator."""
        half_life = min(EMA_KIMG * 1000, EMA_SHARE * self.seen)
        keep = 0.5 ** (self.batch / max(half_life, 1e-8))
        ours, theirs = self.ema.state_dict(), self.generator.state_dict()
        floating = [name for name, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [ours[name] for name in floating], [theirs[name] for name in floating], 1 - keep
        )


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
