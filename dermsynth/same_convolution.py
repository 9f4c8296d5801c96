"""TensorFlow's SAME padding inside the convolution, and its gradients on a CPU at full speed.

An even side at stride 2 is padded by one more at its end than at its start, which no convolution
does by itself: the libraries pad a copy of the input first. A kernel with a row and a column of
zeros before its own does the same with as much padding on both sides.

What the CPU's library (oneDNN 3) does slowly is done otherwise, to the same result: the weight
gradient of a 5x5 depthwise convolution of small maps (49 ms for 1392 channels of 4x4, batch 32,
where the 3x3 one takes 0.7) and of pointwise convolutions (50 GFLOP/s against 75 of a product).
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# Input positions times output positions up to which two products beat oneDNN's depthwise weight
# gradient: 4x4 at stride 1, 13 times; 8x8 to 4x4, 1.4 times; 7x7 at stride 1, not clearly.
MOST_PAIRS = 1024


class SameConv2d(nn.Conv2d):
    """A convolution with the weight, and the results, of a library's one for a fixed image size.

    `like` pads [left, right, top, bottom] by `padding` before it convolves; left is top, right is
    bottom, and the second is the first or one more.
    """

    def __init__(self, like: nn.Conv2d, padding: tuple[int, int]) -> None:
        with torch.device("meta"):  # its weights are those of `like`
            super().__init__(
                like.in_channels,
                like.out_channels,
                like.kernel_size,  # type: ignore[arg-type]
                like.stride,  # type: ignore[arg-type]
                padding[1],
                groups=like.groups,
                bias=like.bias is not None,
            )
        self.weight, self.bias = like.weight, like.bias
        self.before, self.after = padding
        self.depthwise = self.groups == self.in_channels == self.out_channels
        self.pointwise = self.kernel_size == (1, 1) and self.stride == (1, 1) and self.groups == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] to [n, d, ceil(h / stride), ceil(w / stride)]."""
        weight = self.weight
        learns = weight.requires_grad and differentiated_on_cpu(x)
        if learns and self.pointwise and x.is_contiguous(memory_format=torch.channels_last):
            return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        if learns and self._is_small(x):
            return _SmallDepthwise.apply(x, weight, self.stride[0], self.before, self.after)
        if self._starts_a_kernel_a_channel(x):
            return self._by_torch(x)
        if self.before == self.after:
            return super().forward(x)
        # a graph that is written to a file takes the plain way, too
        if self.depthwise and x.device.type == "cpu" and not torch.compiler.is_compiling():
            weight = F.pad(weight, (1, 0, 1, 0))
            return F.conv2d(x, weight, self.bias, self.stride, self.after, 1, self.groups)
        # Elsewhere kernels of 4x4 and 6x6 are none of the fast ones; of a few channels a copy is
        # cheap.
        x = F.pad(x, (self.before, self.after, self.before, self.after))
        return F.conv2d(x, weight, self.bias, self.stride, 0, 1, self.groups)

    def activated(self, x: torch.Tensor, activation: nn.Module) -> torch.Tensor:
        """`activation(self(x))`: on a CPU without gradients SiLU comes within the convolution."""
        fused = isinstance(activation, nn.SiLU) and _fuses(x)
        if not fused or (self.before != self.after and not self.depthwise):
            return activation(self(x))
        weight = self.weight if self.before == self.after else F.pad(self.weight, (1, 0, 1, 0))
        return torch.ops.mkldnn._convolution_pointwise(
            *(x, weight, self.bias, [self.after] * 2, list(self.stride), [1, 1], self.groups),
            *("swish", [], ""),
        )

    def _starts_a_kernel_a_channel(self, x: torch.Tensor) -> bool:
        """Whether cuDNN would do so in the gradient of x: of frozen weights, with channels last."""
        frozen = self.depthwise and not self.weight.requires_grad
        return frozen and x.device.type == "cuda" and torch.is_grad_enabled()

    def _by_torch(self, x: torch.Tensor) -> torch.Tensor:
        """By torch's own kernels, which it takes where channels come first, also of the weight."""
        height, width = self.kernel_size
        own = (height * width, height * width, width, 1)
        weight = self.weight.as_strided(self.weight.shape, own)
        padding = self.after
        if self.before != self.after:
            x, padding = F.pad(x, (self.before, self.after, self.before, self.after)), 0
        x = F.conv2d(x.contiguous(), weight, self.bias, self.stride, padding, 1, self.groups)
        return x.contiguous(memory_format=torch.channels_last)

    def _is_small(self, x: torch.Tensor) -> bool:
        """Whether products give the gradient of the weight sooner."""
        if not self.depthwise or self.kernel_size[0] < 5 or self.bias is not None:
            return False
        h, w = x.shape[2:]
        stride = self.stride[0]
        return h * w * (-(-h // stride)) * (-(-w // stride)) <= MOST_PAIRS


def differentiated_on_cpu(x: torch.Tensor) -> bool:
    """Whether functions with gradients of their own may take x: not while a graph is traced."""
    return _on_cpu(x, torch.float32, torch.float64) and torch.is_grad_enabled()


def _fuses(x: torch.Tensor) -> bool:
    """Whether oneDNN may take x, a convolution and an activation at once, as torch.compile does."""
    if torch.is_grad_enabled() or not torch.backends.mkldnn.is_available():
        return False
    return _on_cpu(x, torch.float32) and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _on_cpu(x: torch.Tensor, *dtypes: torch.dtype) -> bool:
    if x.device.type != "cpu" or x.dtype not in dtypes or torch.is_autocast_enabled("cpu"):
        return False
    return not torch.compiler.is_compiling()


class _SmallDepthwise(torch.autograd.Function):
    """A depthwise convolution without bias; the gradient of its weight by matrix products.

    Of every channel, the products of all input with all output positions, summed over the images,
    are one product of two matrices; each element of the kernel is the sum of those of its pairs.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int, before: int, after: int
    ) -> torch.Tensor:
        extra = after - before
        padded = F.pad(weight, (extra, 0, extra, 0)) if extra else weight
        ctx.save_for_backward(x, padded)
        ctx.stride, ctx.before, ctx.after, ctx.kernel = stride, before, after, weight.shape[2:]
        return F.conv2d(x, padded, None, stride, after, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            stride, padding = [ctx.stride] * 2, [ctx.after] * 2
            grad_x = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight)),
                [True, False, False],
            )[0]
        if ctx.needs_input_grad[1]:
            pairs = torch.bmm(_by_channel(x).transpose(1, 2), _by_channel(grad)).flatten(1)
            places = _places(*x.shape[2:], *grad.shape[2:], *ctx.kernel, ctx.stride, ctx.before)
            grad_weight = (pairs @ places.to(pairs.dtype)).view(-1, 1, *ctx.kernel)
        return grad_x, grad_weight, None, None, None


def _by_channel(x: torch.Tensor) -> torch.Tensor:
    """[n, c, h, w], best channels last, to [c, n, h * w]."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n * h * w, c).t().contiguous().view(c, n, h * w)


@functools.cache
def _places(
    h: int, w: int, out_h: int, out_w: int, kernel_h: int, kernel_w: int, stride: int, before: int
) -> torch.Tensor:
    """Which element of the kernel links an input with an output position: 1 there, else 0.

    float32 [h * w * out_h * out_w, kernel_h * kernel_w]
    """
    rows, columns = (
        torch.arange(side)[:, None, None] - torch.arange(out)[:, None] * stride + before
        == torch.arange(kernel)
        for side, out, kernel in ((h, out_h, kernel_h), (w, out_w, kernel_w))
    )  # [side, out, kernel]
    links = torch.einsum("iak,jbl->ijabkl", rows.float(), columns.float())
    return links.reshape(h * w * out_h * out_w, kernel_h * kernel_w)
