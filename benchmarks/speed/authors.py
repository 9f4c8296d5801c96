"""The authors' own StyleGAN2-ADA and Projected GAN, from checkouts that the user fetched.

Their networks, losses, augmentation and dataset run as they are; what is written here is the order
of their training loops' steps, for one GPU, without snapshots and logs. Their licences forbid
carrying their code, so that nothing of it is here:

    git clone https://github.com/NVlabs/stylegan2-ada-pytorch FOLDER/stylegan2-ada-pytorch
    git clone https://github.com/autonomousvision/projected-gan FOLDER/projected-gan

They were written for torch 1.7 to 1.10. What does not work with today's is mended in memory:
`grid_sample` of images that are differentiated twice, compiled operators that nobody finds, timm's
networks without `act1`, and Python without distutils. Their own gradients of convolutions fall back
to torch's by themselves.
"""

import contextlib
import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.speed import references
from dermsynth.errors import UserError
from dermsynth.vision import library

ADA, PROJECTED = "stylegan2-ada-pytorch", "projected-gan"
OWNERS = {ADA: "NVlabs", PROJECTED: "autonomousvision"}
BATCHES = {ADA: 32, PROJECTED: 64}  # theirs: `--cfg=auto` at 128 px on one GPU; the readme's
THEIRS = ("dnnlib", "torch_utils", "training", "pg_modules")  # top names of their modules
HIGHEST_FP16 = 4  # resolutions that StyleGAN2-ADA computes in fp16 on a GPU


def check(folder: Path) -> None:
    """Raises UserError where a checkout is not there."""
    for name, owner in OWNERS.items():
        if not (folder / name / "training" / "loss.py").is_file():
            raise UserError(
                f"--others {folder}: expected the checkouts {' and '.join(OWNERS)} in it, and "
                f"{name} is not there; git clone https://github.com/{owner}/{name} {folder / name}"
            )


@contextlib.contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Their modules can be imported: both have some of the same names, so that none stays."""
    library("timm")  # before they import it, beside a torch of another build
    _forget()
    sys.path.insert(0, str(folder.resolve()))
    stub: Any = types.ModuleType("distutils.util")
    stub.strtobool = bool
    missing = importlib.util.find_spec("distutils") is None
    stubs = {"distutils": types.ModuleType("distutils"), stub.__name__: stub} if missing else {}
    sys.modules |= stubs
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))
        _forget()
        for name in stubs:
            del sys.modules[name]


def _forget() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in THEIRS:
            del sys.modules[name]


@dataclass(frozen=True)
class Phase:
    """A part of an iteration: gradients of one network, and a step of its optimizer."""

    name: str  # as their loss knows it
    module: nn.Module
    optimizer: torch.optim.Optimizer
    every: int = 1  # iterations


class Training:
    """One of their trainings: an iteration is data, then phases, then the average."""

    checkout: str
    z_dim: int
    precision: str  # in words
    loss: Any
    phases: list[Phase]

    def __init__(
        self, folder: Path, images: Path, size: int, batch: int, device: torch.device
    ) -> None:
        self.images, self.size, self.batch, self.device = images, size, batch, device
        self.iterations, self.ema_images = 0, batch * 10 / 32 * 1000
        with importing(folder / self.checkout):  # their networks look for their modules when made
            self.build()

    def build(self) -> None:
        """Networks, data, loss and phases."""
        raise NotImplementedError

    def place(
        self, generator: nn.Module, average: nn.Module, discriminator: nn.Module, dataset: Any
    ) -> None:
        """The networks on the device, and images as theirs, by as many workers as ours."""
        data = dataset.ImageFolderDataset(path=str(self.images), xflip=True)
        for network in (generator, discriminator, average):
            network.train().requires_grad_(False).to(self.device)
        average.load_state_dict(generator.state_dict())
        self.generator, self.average = generator, average.eval()
        self.discriminator = discriminator
        self.loader = references.Loader(data, self.batch, self.device)

    def advance(self, steps: int) -> None:
        """So many iterations, with the settings of cuDNN and of products that theirs choose."""
        with torch.backends.cudnn.flags(True, benchmark=True, allow_tf32=False):
            before = torch.backends.cuda.matmul.allow_tf32
            torch.backends.cuda.matmul.allow_tf32 = False
            for images, labels in self.loader.take(steps):
                self.iterate(images, labels)
            torch.backends.cuda.matmul.allow_tf32 = before

    def iterate(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """uint8 [batch, 3, size, size], float [batch, 0]."""
        real = images.to(self.device).to(torch.float32) / 127.5 - 1
        labels = labels.to(self.device)
        latents = torch.randn(len(self.phases), self.batch, self.z_dim, device=self.device)
        for phase, z in zip(self.phases, latents, strict=True):
            if self.iterations % phase.every:
                continue
            phase.optimizer.zero_grad(set_to_none=True)
            phase.module.requires_grad_(True)
            self.accumulate(phase, real, labels, z)
            phase.module.requires_grad_(False)
            self.clean([p for p in phase.module.parameters() if p.grad is not None])
            phase.optimizer.step()
        self.move_average()
        self.iterations += 1
        self.after()

    def accumulate(
        self, phase: Phase, real: torch.Tensor, labels: torch.Tensor, z: torch.Tensor
    ) -> None:
        """Gradients by their loss."""
        raise NotImplementedError

    def clean(self, parameters: list[nn.Parameter]) -> None:
        """What is not finite leaves the gradients."""
        raise NotImplementedError

    def after(self) -> None:
        """What an iteration ends with."""

    def notes(self) -> list[str]:
        """After the first step: what a reader of the figures must know."""
        raise NotImplementedError

    def move_average(self) -> None:
        """Parameter by parameter; buffers are copied."""
        seen = self.iterations * self.batch
        share = 0.5 ** (self.batch / max(min(self.ema_images, seen * 0.05), 1e-8))
        with torch.no_grad():
            mine, theirs = self.average, self.generator
            for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
                a.copy_(b.lerp(a, share))
            for a, b in zip(mine.buffers(), theirs.buffers(), strict=True):
                a.copy_(b)


class StyleGan2Ada(Training):
    """`--cfg=auto --mirror=1` on one GPU: lazy R1 and path lengths, style mixing, ADA of `bgc`."""

    checkout, z_dim = ADA, 512
    target, interval, kimg = 0.6, 4, 500  # of ADA

    def build(self) -> None:
        """As their train.py chooses."""
        networks, augment, loss, dataset = map(
            importlib.import_module,
            [f"training.{name}" for name in ("networks", "augment", "loss", "dataset")],
        )
        importlib.import_module("torch_utils.ops.conv2d_gradfix").enabled = True
        importlib.import_module("torch_utils.custom_ops").get_plugin = _compiled
        _mend_grid_sample(importlib.import_module("torch_utils.ops.grid_sample_gradfix"))
        size, on_gpu = self.size, self.device.type == "cuda"
        widths = {
            "channel_base": 16384 if size < 512 else 32768,
            "channel_max": 512,
            "num_fp16_res": HIGHEST_FP16 if on_gpu else 0,  # `--fp32` on a CPU
            "conv_clamp": 256 if on_gpu else None,
        }
        generators = [
            networks.Generator(512, 0, 512, size, 3, {"num_layers": 2}, widths) for _ in range(2)
        ]
        group = {"mbstd_group_size": min(self.batch, 4)}
        judge = networks.Discriminator(0, size, 3, epilogue_kwargs=group, **widths)
        self.place(*generators, judge, dataset)
        kinds = "xflip rotate90 xint scale rotate aniso xfrac brightness contrast lumaflip hue"
        self.augment = augment.AugmentPipe(**dict.fromkeys([*kinds.split(), "saturation"], 1))
        self.augment.train().requires_grad_(False).to(self.device)
        self.loss = loss.StyleGAN2Loss(
            device=self.device,
            G_mapping=self.generator.mapping,
            G_synthesis=self.generator.synthesis,
            D=judge,
            augment_pipe=self.augment,
            r1_gamma=0.0002 * size**2 / self.batch,
        )
        self.phases = [*_lazy("G", self.generator, 0.0025, 4), *_lazy("D", judge, 0.0025, 16)]
        self.precision = "fp16 and fp32" if on_gpu else "fp32"
        self.operators = [
            importlib.import_module(f"torch_utils.ops.{name}") for name in ("bias_act", "upfirdn2d")
        ]
        stats = importlib.import_module("torch_utils.training_stats")
        self.signs = stats.Collector(regex="Loss/signs/real")

    def accumulate(
        self, phase: Phase, real: torch.Tensor, labels: torch.Tensor, z: torch.Tensor
    ) -> None:
        """As theirs, on one GPU in one go."""
        self.loss.accumulate_gradients(
            phase=phase.name, real_img=real, real_c=labels, gen_z=z, gen_c=labels,
            sync=True, gain=phase.every,
        )  # fmt: skip

    def clean(self, parameters: list[nn.Parameter]) -> None:
        """Each gradient by itself."""
        for parameter in parameters:
            torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)

    def notes(self) -> list[str]:
        """Whether its CUDA operators could be compiled; what today's torch takes from it."""
        found = []
        if self.device.type == "cuda":
            built = [module._plugin is not None for module in self.operators]
            how = "compiled" if all(built) else "not compiled, its reference operators instead"
            found.append(f"its CUDA operators (bias_act, upfirdn2d) {how}")
        return [*found, "its convolutions' own gradients (torch 1.7 to 1.9) fall back to torch's"]

    def after(self) -> None:
        """ADA."""
        if self.iterations % self.interval == 0:
            self.signs.update()
            over = np.sign(self.signs["Loss/signs/real"] - self.target)
            step = over * self.batch * self.interval / (self.kimg * 1000)
            self.augment.p.copy_((self.augment.p + step).clamp(min=0))


class ProjectedGan(Training):
    """`--cfg=fastgan --mirror=1` on one GPU. Its feature network has random weights here."""

    checkout, z_dim, precision = PROJECTED, 256, "fp32"

    def build(self) -> None:
        """As their train.py chooses."""
        made, judging, projector = map(
            importlib.import_module,
            [f"pg_modules.{name}" for name in ("networks_fastgan", "discriminator", "projector")],
        )
        loss, dataset = map(importlib.import_module, ("training.loss", "training.dataset"))
        projector.timm = types.SimpleNamespace(create_model=_feature_network)
        generators = [made.Generator(img_resolution=self.size) for _ in range(2)]
        kwargs = {"cout": 64, "expand": True, "proj_type": 2, "num_discs": 4, "separable": False}
        judge = judging.ProjectedDiscriminator(interp224=self.size < 224, backbone_kwargs=kwargs)
        self.place(*generators, judge, dataset)
        nets = {"G": self.generator, "D": judge, "G_ema": self.average}
        self.loss = loss.ProjectedGANLoss(device=self.device, **nets)
        adam = torch.optim.Adam(self.generator.parameters(), 0.0002, (0.0, 0.99))
        self.phases = [Phase("Gboth", self.generator, adam), *_lazy("D", judge, 0.0002, 16)]

    def accumulate(
        self, phase: Phase, real: torch.Tensor, labels: torch.Tensor, z: torch.Tensor
    ) -> None:
        """As theirs; the feature network does not learn."""
        if phase.module is self.discriminator:
            self.discriminator.feature_network.requires_grad_(False)
        self.loss.accumulate_gradients(
            phase=phase.name, real_img=real, real_c=labels, gen_z=z, gen_c=labels,
            gain=phase.every, cur_nimg=self.iterations * self.batch,
        )  # fmt: skip

    def notes(self) -> list[str]:
        """What is not as in its readme."""
        return ["its feature network has random weights, not a download's; it takes as long"]

    def clean(self, parameters: list[nn.Parameter]) -> None:
        """All gradients as one tensor."""
        if not parameters:
            return
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        torch.nan_to_num(flat, nan=0, posinf=1e5, neginf=-1e5, out=flat)
        parts = flat.split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.reshape(parameter.shape)


TRAININGS: dict[str, type[StyleGan2Ada] | type[ProjectedGan]] = {
    ADA: StyleGan2Ada,
    PROJECTED: ProjectedGan,
}


def _lazy(name: str, module: nn.Module, lr: float, every: int) -> list[Phase]:
    """Two phases with one optimizer, the second every so many iterations, as of StyleGAN2."""
    share = every / (every + 1)
    adam = torch.optim.Adam(module.parameters(), lr * share, (0.0, 0.99**share))
    return [Phase(f"{name}main", module, adam), Phase(f"{name}reg", module, adam, every)]


def _feature_network(name: str, pretrained: bool) -> nn.Module:
    """timm's network, whose first activation has moved into `bn1` since; random weights."""
    network = library("timm").create_model(name)
    if not hasattr(network, "act1"):
        network.act1 = nn.Identity()
    return network


def _compiled(module_name: str, sources: list[str], **how: Any) -> Any:
    """Theirs looks among the imported modules for what it has compiled; torch puts none there."""
    return importlib.import_module("torch.utils.cpp_extension").load(module_name, sources, **how)


def _mend_grid_sample(module: Any) -> None:
    """torch's own cannot be differentiated twice, and theirs asks for an operator's old form."""
    warnings.filterwarnings("ignore", message=r".*gradfix not supported on PyTorch|torch.meshgrid")

    class Backward(torch.autograd.Function):
        """Gradient of the images, linear in `grad`."""

        @staticmethod
        def forward(
            ctx: Any, grad: torch.Tensor, images: torch.Tensor, grid: torch.Tensor
        ) -> tuple[torch.Tensor, None]:
            ctx.save_for_backward(grid)
            backward = torch.ops.aten.grid_sampler_2d_backward
            return backward(grad, images, grid, 0, 0, False, [True, False])[0], None

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor, None, None]:
            (grid,) = ctx.saved_tensors
            return module._GridSample2dForward.apply(grad, grid), None, None

    module.enabled = True
    module._should_use_custom_op = lambda: True
    module._GridSample2dBackward = Backward
