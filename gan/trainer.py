"""Generator against discriminator: one iteration of both, and all of their state."""

from collections.abc import Hashable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dermsynth.cuda_graph import Graphed
from dermsynth.device import Compute
from dermsynth.distributed import Processes
from dermsynth.errors import UserError
from dermsynth.optimizers import Adam, adam_options, load_optimizer, move_average, settle
from dermsynth.seeds import seed_torch
from dermsynth.tensors import send
from gan.ada import ADAPTIVE, AdaptiveP
from gan.augment import augmented
from gan.hyperparameters import Hyperparameters
from gan.losses import LOSSES, PENALTIES, Heads
from gan.networks import architecture, describe
from gan.spectra import SpectralDistance

VERSION = 4  # of the checkpoint's content
SPREAD_SIDE = 8  # px at which the diversity of a batch is measured

Labels = torch.Tensor | None
Part = tuple[torch.Tensor, Labels]


class Trainer:
    """Both networks, the generator's moving average (EMA), both optimizers, the step count.

    Randomness depends on (seed, step) only, so `state`, saved after any step, is all that an exact
    resume needs.

    Parameters
    ----------
    arch : a name in gan.networks.ARCHITECTURES
    config : its networks' widths, and how they are trained
    seed : of the weights and every random choice
    compute : where and how
    accumulate : parts of a batch that are computed one after the other, to save memory
    processes : each computes its share of a batch; none: this one alone
    """

    def __init__(
        self,
        arch: str,
        config: Hyperparameters,
        seed: int,
        compute: Compute,
        accumulate: int = 1,
        processes: Processes | None = None,
    ) -> None:
        parts = architecture(arch)
        self.arch, self.config, self.seed, self.compute = arch, config, seed, compute
        self.accumulate, self.processes, self.steps = accumulate, processes or Processes(), 0
        seed_torch(seed, "gan/initial weights")
        self.generator = self._place(parts.generator(config))
        self.discriminator = self._place(parts.discriminator(config))
        self.ema = self._place(parts.generator(config)).eval().requires_grad_(False)
        self.ema.load_state_dict(self.generator.state_dict())
        self.judging = [p for p in self.discriminator.parameters() if p.requires_grad]
        self.generator_optimizer, self.discriminator_optimizer = (
            Adam(
                parameters,
                lr * share,
                tuple(beta**share for beta in config.betas),
                **adam_options(compute.device),
            )
            for parameters, lr, share in (
                (self.generator.parameters(), config.lr_generator, 1.0),
                (self.judging, config.lr_discriminator, config.penalty_share),
            )
        )
        self.loss = LOSSES[config.loss]
        self.spectral: SpectralDistance | None = None  # once training images were shown
        # of what was measured since `take_means`
        self.sums = {name: torch.zeros((), device=compute.device) for name in self._measures()}
        self._due: set[str] = set()  # which of them were measured since then
        self._measured: dict[Hashable, set[str]] = {}  # by each kind of step
        self._noting: set[str] = set()  # by the step that runs
        self._penalised = self._changed = False  # in it
        self._graph = Graphed(self._iterate, "gan", record=self.processes.count == 1)
        self.ada = AdaptiveP(config, compute.device)
        self._settle()

    @property
    def images_a_step(self) -> int:
        """Real images that one step takes, over all processes."""
        return self.config.batch * self.config.critic_steps

    @property
    def images_seen(self) -> int:
        """Real images that the discriminator has seen."""
        return self.steps * self.images_a_step

    def begin_from(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Show training images, before the first step and after `restore`.

        To a generator that begins from them (`begin_from`), and to the distance of spectra.
        `images` uint8 [n, size, size, 3]; `labels` int64 [n], where the networks are conditional.
        """
        # on the CPU: components that vary alike could be turned otherwise on another device
        shown = _scaled(torch.from_numpy(images))
        classes = None if labels is None else torch.from_numpy(labels)
        if self.config.spectrum_weight:
            self.spectral = SpectralDistance(shown).to(self.compute.device)
        if self.steps == 0 and hasattr(self.generator, "begin_from"):
            self.generator.begin_from(shown, classes)
            self.ema.load_state_dict(self.generator.state_dict())
            self._settle()

    def step(self, real: torch.Tensor, labels: Labels = None) -> None:
        """One iteration: `critic_steps` steps of the discriminator, one of the generator.

        `real` uint8 [images_a_step / processes, size, size, 3]; `labels` int64, one an image,
        where the networks are conditional: the fakes get the same ones. Never waits for the device.
        """
        # all randomness of an iteration comes from (seed, its number, rank)
        alone, config, device = self.processes.count == 1, self.config, self.compute.device
        seed_torch(self.seed, "gan/step", self.steps, *([] if alone else [self.processes.rank]))
        penalised = config.penalty != "none" and self.steps % config.penalty_every == 0
        half_life = config.ema_share * (self.images_seen + self.images_a_step)
        half_life = max(min(config.ema_kimg * 1000, half_life), 1e-8)
        weight = send(np.array([1 - 0.5 ** (self.images_a_step / half_life)], np.float32), device)
        labels = None if labels is None else labels.to(device)
        kind = (penalised, self.ada.is_due(self.steps), self.ada.acts)
        self._graph(kind, real.to(device), labels, weight[0])
        self._due |= self._measured[kind]
        self.steps += 1
        self.compute.step()

    def _iterate(
        self,
        kind: tuple[bool, bool, bool],
        real: torch.Tensor,
        labels: Labels,
        weight: torch.Tensor,
    ) -> None:
        """One iteration. `kind`: are gradients penalised, ADA's p adjusted, images changed?"""
        self._penalised, adjusted, self._changed = kind
        self._noting = self._measured.setdefault(kind, set())
        turns = list(_split(self._to_input(real), labels, self.config.critic_steps))

        # --- discriminator
        for turn, (images, classes) in enumerate(turns, start=1):
            parts = list(_split(images, classes, self.accumulate))
            # the generator learns from the fakes of the last turn: a generator pass saved
            shared = turn == len(turns) and len(parts) == 1
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            for images, classes in parts:
                with torch.set_grad_enabled(shared):
                    fake = self._fakes(len(images), classes)
                loss = self._discriminator_loss(images, fake.detach(), classes)
                (loss / len(parts)).backward()
            self._descend(self.discriminator_optimizer)

        # --- generator
        _learn(self.judging, False)
        self.generator_optimizer.zero_grad(set_to_none=True)
        for images, classes in parts:
            if not shared:
                fake = self._fakes(len(images), classes)
            loss = self._generator_loss(fake, images, classes)
            (loss / len(parts)).backward()
        self._descend(self.generator_optimizer)
        _learn(self.judging, True)

        # --- augmentation's strength and the average
        if adjusted:
            self.ada.move(self.images_a_step, self.processes)
        self._average(weight)

    def _discriminator_loss(
        self, real: torch.Tensor, fake: torch.Tensor, labels: Labels
    ) -> torch.Tensor:
        config = self.config
        seen = self._augment(real), self._augment(fake)
        with self.compute.autocast():  # apart: batch norm must not mix them
            on_real, real_classes, missing = self._judge(seen[0], labels, reconstruct=True)
            on_fake, fake_classes, _ = self._judge(seen[1], labels)
        loss = self.loss.discriminator(on_real, on_fake)
        share = self.accumulate * config.critic_steps
        self._note(share, loss_d=loss, score_real=on_real[0].float().mean())
        self._note(share, score_fake=on_fake[0].float().mean())
        self._note(share, spread_real=_spread(real), spread_fake=_spread(fake))
        if real_classes is not None:
            named = sum(_cross_entropy(c, labels) for c in (real_classes, fake_classes))
            loss = loss + config.class_weight * named
            self._note(share, loss_class=named)
        if missing is not None:
            loss = loss + missing.float()
            self._note(share, loss_reconstruction=missing)
        if self._penalised:
            penalty = PENALTIES[config.penalty](lambda x: self.discriminator(x, labels), *seen)
            loss = loss + config.penalty_strength * config.penalty_every * penalty
            self._note(share, penalty=penalty * config.penalty_every)
        self.ada.note(on_real, share)
        return loss

    def _generator_loss(
        self, fake: torch.Tensor, real: torch.Tensor, labels: Labels
    ) -> torch.Tensor:
        seen = self._augment(fake)
        with self.compute.autocast():
            verdict, classes, _ = self._judge(seen, labels)
            on_real = None
            if self.loss.paired:
                on_real, *_ = self._judge(self._augment(real), labels)
        loss = self.loss.generator(verdict, on_real)
        self._note(self.accumulate, loss_g=loss)
        if classes is not None:
            loss = loss + self.config.class_weight * _cross_entropy(classes, labels)
        if self.config.spectrum_weight:
            assert self.spectral is not None, "begin_from comes before the first step"
            distance = self.spectral(fake)
            loss = loss + self.config.spectrum_weight * distance
            self._note(self.accumulate, spectrum=distance)
        return loss

    def _fakes(self, count: int, labels: Labels) -> torch.Tensor:
        z = torch.randn(count, self.generator.latent_dim, device=self.compute.device)
        with self.compute.autocast():
            return self.generator(z, labels)

    def _judge(
        self, images: torch.Tensor, labels: Labels, reconstruct: bool = False
    ) -> tuple[Heads, torch.Tensor | None, torch.Tensor | None]:
        """Logits a head; class logits and reconstruction loss of a discriminator that has them."""
        network = self.discriminator
        if hasattr(network, "forward_with_classes"):
            return *network.forward_with_classes(images), None
        if reconstruct and hasattr(network, "forward_with_reconstruction"):
            heads, missing = network.forward_with_reconstruction(images)
            return heads, None, missing
        return network(images, labels), None, None

    def _augment(self, images: torch.Tensor) -> torch.Tensor:
        return augmented(images, self.config.augment, self.ada.p if self._changed else None)

    def _descend(self, optimizer: torch.optim.Optimizer) -> None:
        self.processes.mean_gradients(optimizer.param_groups[0]["params"])
        optimizer.step()

    @torch.no_grad()
    def _average(self, weight: torch.Tensor) -> None:
        """Move the EMA, batch statistics included, towards the generator by a share `weight`."""
        if self.processes.count > 1:
            for network in (self.generator, self.discriminator):
                self.processes.mean_statistics(network)
        ours, theirs = self.ema.state_dict(), self.generator.state_dict()
        floating = [name for name, value in ours.items() if value.is_floating_point()]
        move_average([ours[name] for name in floating], [theirs[name] for name in floating], weight)

    def _note(self, share: int, **values: torch.Tensor) -> None:
        """Add one of `share` equal parts of what a step measured."""
        self._noting |= set(values)
        for name, value in values.items():
            self.sums[name] += value.detach().float() / share

    def _measures(self) -> list[str]:
        """What steps measure, in the order of a row."""
        network, names = self.discriminator, ["loss_d", "score_real", "score_fake"]
        names += ["spread_real", "spread_fake"]
        names += ["loss_class"] * hasattr(network, "forward_with_classes")
        names += ["loss_reconstruction"] * hasattr(network, "forward_with_reconstruction")
        names += ["penalty"] * (self.config.penalty != "none")
        return [*names, "loss_g", *["spectrum"] * (self.config.spectrum_weight > 0)]

    def take_means(self, steps: int) -> dict[str, float]:
        """Means over the last `steps` steps; starts over. Waits for the device.

        `diversity`: the spread of a batch of fakes over that of reals; `augment_p`: ADA's p now,
        from which it follows whether adaptive augmentation acts from here on.
        """
        sums = self._measured_sums()
        self.processes.mean_(sums.values())
        values = (torch.stack(list(sums.values())) / steps).tolist()
        means = dict(zip(sums, values, strict=True))
        for value in self.sums.values():
            value.zero_()
        self.compute.step()  # or XLA would compile the next step apart, with zeros for constants
        self._due = set()
        spread_real, spread_fake = means.pop("spread_real"), means.pop("spread_fake")
        means["diversity"] = spread_fake / max(spread_real, 1e-8)
        if self.config.augment in ADAPTIVE:
            means["augment_p"] = self.ada.read()
        return means

    def _measured_sums(self) -> dict[str, torch.Tensor]:
        """Without those of which nothing was measured since `take_means`."""
        return {name: value for name, value in self.sums.items() if name in self._due}

    def is_finite(self) -> bool:
        """False once a loss or a weight is not a number. Waits for the device."""
        networks = self.generator, self.discriminator
        tensors = [*self.sums.values(), *(p for network in networks for p in network.parameters())]
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all())

    def state(self) -> dict[str, Any]:
        """Everything that later steps depend on, for `dermsynth.checkpoint`."""
        sums = self._measured_sums()
        self.processes.mean_(sums.values())
        states = {name: part.state_dict() for name, part in self._parts().items()}
        own = {"step": self.steps, "sums": sums, "version": VERSION}
        return states | own | self.ada.state() | {"architecture": self._architecture()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Raises UserError for one of another version or architecture."""
        self._check_fits(state)
        for name, part in self._parts().items():
            if isinstance(part, torch.optim.Optimizer):
                load_optimizer(part, state[name])
            else:
                part.load_state_dict(state[name])
        self.steps = state["step"]
        for name, value in self.sums.items():
            value.copy_(state["sums"].get(name, torch.zeros(())))
        self._due = set(state["sums"])
        self.ada.restore(state)
        self._settle()

    def _settle(self) -> None:
        """Before a first step, new or resumed."""
        networks = self.generator, self.discriminator, self.ema
        optimizers = self.generator_optimizer, self.discriminator_optimizer
        others = [*self.sums.values(), *self.ada.tensors]
        settle(self.compute.device, optimizers, networks, others)
        self.compute.step()

    def _check_fits(self, state: dict[str, Any]) -> None:
        if state.get("version") != VERSION:
            raise UserError(
                f"the checkpoint has version {state.get('version')}, this code writes {VERSION}; "
                "go on with the version of the code that wrote it, or start a new run"
            )
        before, now = (
            {"arch": description["name"], **description["config"]}
            for description in (state["architecture"], self._architecture())
        )
        if before != now:
            lines = "".join(
                f"\n  {name}: was {before.get(name)}, now {now.get(name)}"
                for name in {**now, **before}
                if before.get(name) != now.get(name)
            )
            raise UserError(
                "the checkpoint is of another architecture; give the same options or start a new "
                f"run{lines}"
            )

    def _architecture(self) -> dict[str, Any]:
        return describe(self.arch, self.config).model_dump()

    def _parts(self) -> dict[str, Any]:
        """The three networks and both optimizers by name."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "ema": self.ema,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def _to_input(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, size, size, 3] -> float [n, 3, size, size] in -1..1 on the device."""
        return _scaled(images.to(self.compute.device))

    def _place(self, network: nn.Module) -> nn.Module:
        return network.to(self.compute.device, memory_format=torch.channels_last)


def _scaled(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _learn(parameters: list[nn.Parameter], learn: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(learn)


def _split(images: torch.Tensor, labels: Labels, parts: int) -> Iterator[Part]:
    """Images and their labels in `parts` equal parts."""
    pieces = images.chunk(parts)
    return zip(pieces, labels.chunk(parts) if labels is not None else [None] * parts, strict=True)


def _cross_entropy(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    return F.cross_entropy(logits.float(), labels)


def _spread(images: torch.Tensor) -> torch.Tensor:
    """How much the images of a batch differ in the large: mean standard deviation at 8x8 px."""
    return F.adaptive_avg_pool2d(images.detach(), SPREAD_SIDE).std(0).mean()
