"""The training loops that people write: images from files, one by one, and plain PyTorch.

Nothing of ours is in them but what is compared: the networks of a generator's loop, its losses.
They follow the public examples (efficientnet-pytorch's and timm's READMEs, albumentations' tutorial
of classification, PyTorch's of DCGAN): a Dataset that opens a file an item, a DataLoader, fp32,
`requires_grad = False` for what is frozen, a loss that is read every step.
"""

import importlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dermsynth.machine import cores
from dermsynth.vision import library
from gan.augment import augmented
from gan.hyperparameters import Hyperparameters
from gan.losses import LOSSES
from gan.networks import architecture
from gan.spectra import SpectralDistance

WORKERS = min(cores(), 8)  # processes of a DataLoader; PyTorch warns above the number of cores
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST_SHOWN = 1000  # images that a generator may look at before its first step


class ImageFiles(Dataset):
    """Images and labels, each opened when it is asked for."""

    def __init__(
        self, paths: Sequence[Path], labels: Sequence[int], transform: Callable[[Image.Image], Any]
    ) -> None:
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, float]:
        image = Image.open(self.paths[number]).convert("RGB")
        return self.transform(image), float(self.labels[number])


def by_albumentations(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """Flips, turns, colour, normalisation. Raises ImportError without albumentations."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    a = importlib.import_module("albumentations")
    to_tensor = importlib.import_module("albumentations.pytorch").ToTensorV2
    transform = a.Compose(
        [
            a.Resize(size, size),
            a.HorizontalFlip(p=0.5),
            a.VerticalFlip(p=0.5),
            a.RandomRotate90(p=0.5),
            a.RandomBrightnessContrast(p=0.5),
            a.HueSaturationValue(p=0.5),
            a.Normalize(MEAN, STD),
            to_tensor(),
        ]
    )
    return lambda image: transform(image=np.array(image))["image"]


def by_torchvision(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """Resized, mirrored at random, to -1..1. Raises ImportError without torchvision."""
    t = library("torchvision.transforms")
    half = [0.5] * 3
    return t.Compose(
        [
            t.Resize((size, size)),
            t.RandomHorizontalFlip(),
            t.ToTensor(),
            t.Normalize(half, half),
        ]
    )


class Loader:
    """A DataLoader of WORKERS processes, asked for short epochs.

    On a GPU `start` is called before the clock runs: its processes have begun and are ahead by as
    much as they go, as in the middle of a long epoch. On a CPU they take the processors from the
    ways that are timed before, so that they begin with the epoch.
    """

    def __init__(self, data: Dataset, batch: int, device: torch.device) -> None:
        self.ahead = device.type == "cuda"
        self.loader = DataLoader(
            data,
            batch,
            shuffle=True,
            num_workers=WORKERS,
            drop_last=True,
            pin_memory=self.ahead,
            persistent_workers=self.ahead,  # an epoch may be shorter than what is timed
        )
        self.begun: Iterator[Any] | None = None

    def start(self) -> None:
        """Begin an epoch, and wait for its first batch."""
        if self.ahead:
            begun = iter(self.loader)
            self.begun = itertools.chain([next(begun)], begun)

    def take(self, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """So many batches, of more than one epoch if need be."""
        epochs = itertools.chain.from_iterable(iter(self.loader) for _ in itertools.count())
        pairs = epochs if self.begun is None else itertools.chain(self.begun, epochs)
        self.begun = None
        return itertools.islice(pairs, steps)


# ------------------------------------------------------------------------------------ classifiers


def efficientnet_pytorch(name: str, size: int, frozen: int) -> nn.Module:
    """The library's network as it comes, stem and first blocks frozen by `requires_grad`.

    Raises ImportError without efficientnet-pytorch, or efficientnet-lite-pytorch for a lite one.
    """
    package = "efficientnet_lite_pytorch" if "lite" in name else "efficientnet_pytorch"
    made = importlib.import_module(package).EfficientNet
    network = made.from_name(name, image_size=size, num_classes=1)
    freeze([network._conv_stem, network._bn0, *network._blocks[:frozen]])
    return network


def timm(name: str, frozen: int) -> nn.Module:
    """timm's network of the same name. Raises ImportError without timm."""
    called = "tf_" + name.replace("-", "_")
    network = library("timm").create_model(called, num_classes=1)
    blocks = [block for stage in network.blocks for block in stage]
    freeze([network.conv_stem, network.bn1, *blocks[:frozen]])
    return network


def freeze(modules: Sequence[nn.Module]) -> None:
    """Take no gradients of a network's first modules, and nothing else: scripts stop here."""
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad = False


class ClassifierEpoch:
    """Trains a network on batches. A script of today adds `channels_last` and `bf16`."""

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        channels_last: bool = False,
        bf16: bool = False,
    ) -> None:
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(device, memory_format=self.layout)
        self.device, self.bf16 = device, bf16
        self.optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        self.criterion = nn.BCEWithLogitsLoss()

    def __call__(self, pairs: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """The mean loss."""
        self.network.train()
        losses = []
        for images, targets in pairs:
            images = images.to(self.device, memory_format=self.layout)
            targets = targets.to(self.device).float()
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = self.criterion(self.network(images).squeeze(1), targets)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)


class RecordedEpoch:
    """The better script's step as one CUDA graph, by PyTorch's recipe: forward, backward, AdamW.

    Losses are read at the end of the epoch only.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        pairs: Iterator[tuple[torch.Tensor, torch.Tensor]],
        bf16: bool,
    ) -> None:
        """Records on the shapes of the first pair."""
        layout = torch.channels_last
        network = network.to(device, memory_format=layout).train()
        images, targets = next(pairs)
        self.images, self.targets = images.clone(memory_format=layout), targets.clone()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, capturable=True)
        criterion = nn.BCEWithLogitsLoss()

        def step() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
                loss = criterion(network(self.images).squeeze(1), self.targets)
            loss.backward()
            optimizer.step()
            return loss.detach()

        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = step()
        self.kept = network, optimizer  # the graph writes into them

    def __call__(self, pairs: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> float:
        """The mean loss."""
        losses = []
        for images, targets in pairs:
            self.images.copy_(images)
            self.targets.copy_(targets)
            self.graph.replay()
            losses.append(self.loss.clone())
        return float(torch.stack(losses).mean())


class Scorer:
    """Scores of uint8 images [n, size, size, 3] in memory, as scripts compute them."""

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        channels_last: bool = False,
        bf16: bool = False,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(device, memory_format=layout).eval()
        self.device, self.layout, self.bf16 = device, layout, bf16
        self.mean, self.std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (MEAN, STD)
        )

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float [n], 0 to 1."""
        pixels = torch.from_numpy(np.array(images)).to(self.device).permute(0, 3, 1, 2)
        pixels = (pixels.float() / 255 - self.mean) / self.std
        pixels = pixels.contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network(pixels)
        return logits.float().squeeze(1).sigmoid().cpu().numpy()


# ------------------------------------------------------------------------------------- generators


class PlainGan:
    """The tutorial's loop around networks of ours, with DiffAugment and an average as people add.

    Of architectures without a penalty, a class or a reconstruction: they all train alike.
    """

    def __init__(self, arch: str, config: Hyperparameters, device: torch.device) -> None:
        made = architecture(arch)
        self.config, self.device = config, device
        self.generator = made.generator(config).to(device)
        self.discriminator = made.discriminator(config).to(device)
        self.average = made.generator(config).to(device).eval()
        self.average.load_state_dict(self.generator.state_dict())
        betas, judging = config.betas, self.discriminator.parameters()
        learning = [p for p in judging if p.requires_grad]
        self.optimizer_g = torch.optim.Adam(
            self.generator.parameters(), config.lr_generator, betas=betas
        )
        self.optimizer_d = torch.optim.Adam(learning, config.lr_discriminator, betas=betas)
        self.loss = LOSSES[config.loss]
        self.spectral: SpectralDistance | None = None

    def epoch(
        self, pairs: Iterator[tuple[torch.Tensor, torch.Tensor]], bf16: bool = False
    ) -> list[tuple[float, float]]:
        """Train on batches, `critic_steps` of them an iteration; both losses of each iteration."""
        losses = []
        for images, _ in pairs:
            images = images.to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                for real in images.chunk(self.config.critic_steps):
                    self.optimizer_d.zero_grad()
                    fake = self.generator(self.latents(len(real)))
                    on_real = self.discriminator(self.augmented(real))
                    on_fake = self.discriminator(self.augmented(fake.detach()))
                    loss_d = self.loss.discriminator(on_real, on_fake)
                    loss_d.backward()
                    self.optimizer_d.step()
                self.optimizer_g.zero_grad()
                fake = self.generator(self.latents(len(real)))
                loss_g = self.loss.generator(self.discriminator(self.augmented(fake)), None)
                if self.spectral is not None:
                    loss_g = loss_g + self.config.spectrum_weight * self.spectral(fake)
                loss_g.backward()
                self.optimizer_g.step()
            with torch.no_grad():
                for ours, theirs in zip(
                    self.average.parameters(), self.generator.parameters(), strict=True
                ):
                    ours.mul_(0.999).add_(theirs, alpha=0.001)
            losses.append((loss_d.item(), loss_g.item()))
        return losses

    def begin_from(self, images: torch.Tensor) -> None:
        """Show float [n, 3, size, size] images in -1..1, some, to whatever begins from them."""
        shown = images[:MOST_SHOWN]
        if self.config.spectrum_weight:
            self.spectral = SpectralDistance(shown).to(self.device)
        if hasattr(self.generator, "begin_from"):
            self.generator.begin_from(shown)

    def latents(self, count: int) -> torch.Tensor:
        """float [count, latent_dim]."""
        return torch.randn(count, self.generator.latent_dim, device=self.device)

    def augmented(self, images: torch.Tensor) -> torch.Tensor:
        """By the architecture's augmentation; nothing is learned by heart here."""
        return augmented(images, self.config.augment, None)


@torch.no_grad()
def make_pngs(network: nn.Module, count: int, batch: int, folder: Path, device: str) -> None:
    """Images from a generator as scripts make them: a batch, then a PNG each."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, batch):
        z = torch.randn(batch, network.latent_dim, device=device)
        pictures = network(z).add(1).mul(127.5).clamp(0, 255).byte().permute(0, 2, 3, 1)
        for number, picture in enumerate(pictures.cpu().numpy(), start):
            Image.fromarray(picture).save(folder / f"{number}.png")
