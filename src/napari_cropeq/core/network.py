"""Networks: valid (crop-equivariant) ones on the SR grid or the source grid, and a zero-padded baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cropeq.errors import ArgumentError

__all__ = [
    "LEVELS",
    "NETWORKS",
    "ErrorTail",
    "PaddedNetwork",
    "SubpixelNetwork",
    "ValidNetwork",
    "build_network",
    "shrink",
    "spread",
    "work",
]

MAX_FILTERS = 1024
MAX_BLOCKS = 64
MAX_SUBPOSITIONS = 32

LEVELS = (0.5, 0.8, 0.9)
"""Shares of voxels whose error is within an interval."""

LEAST, MOST = 1e-3, 0.5  # of the expected error, share of the range of intensities


def shrink(layers: int, kernel: int) -> int:
    """Return how many px smaller a stack of valid convolutions makes an image (paper, Eq. 2)."""
    return 2 * layers * (kernel // 2)


def exact_conv(image: Tensor, conv: nn.Conv2d) -> Tensor:
    """Convolve without padding and gradients; on the CPU in float32 with the same bits for every image size and batch.

    ``torch.conv2d`` uses another kernel, with other bits, for small inputs; calling oneDNN directly
    with channels-last activations does not.
    """
    has_onednn: bool = torch.backends.mkldnn.is_available()
    if image.device.type == "cpu" and image.dtype is torch.float32 and has_onednn:
        return torch.mkldnn_convolution(image, conv.weight, conv.bias, [0, 0], [1, 1], [1, 1], 1)
    return functional.conv2d(image, conv.weight, conv.bias)


def channels_last(image: Tensor) -> Tensor:
    """Return ``image`` (N, C, H, W) with channels-last strides, also if C is 1.

    torch treats a one-channel tensor as channels-last whatever its strides are, and oneDNN then selects its kernels
    by those strides: other bits for other tiles.
    """
    n, c, h, w = image.shape
    if image.stride() == (h * w * c, 1, w * c, c):
        return image
    out = torch.empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=image.dtype, device=image.device)
    return out.copy_(image)


def use_channels_last(network: nn.Module) -> None:
    """Change the memory layout of the weights to channels-last, in place."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class ValidNetwork(nn.Module):
    """Unpadded residual network: head, blocks of two convolutions, tail; stride 1 throughout (paper, Fig. 2).

    Parameters
    ----------
    filters : int
        Feature maps between layers.
    blocks : int
        Residual blocks of two convolutions; 7 in the paper.
    kernel : int
        Odd side of a kernel; 3 in the paper.
    subpositions : int
        Outputs per input sample along the axial axis; 1, since input and output lie on the SR grid.

    Notes
    -----
    Input (N, 1, H, W), output (N, 1, H - shrink, W - shrink). The tail is initialised to zero and added to
    the cropped input, so the untrained network returns the interpolation that it gets.
    """

    kind = "valid"
    on_source_grid = False

    def __init__(self, filters: int = 32, blocks: int = 7, kernel: int = 3, subpositions: int = 1) -> None:
        super().__init__()
        self.filters, self.blocks, self.kernel, self.subpositions = filters, blocks, kernel, subpositions
        self.head = nn.Conv2d(1, filters, kernel)
        pairs = [(filters, filters, (kernel, kernel)), (filters, filters, (self.second(kernel), kernel))]
        self.body = nn.ModuleList(nn.Conv2d(*pair) for pair in pairs * blocks)
        self.tail = nn.Conv2d(filters, subpositions, kernel)
        initialise(self)
        use_channels_last(self)

    @staticmethod
    def second(kernel: int) -> int:
        """Return the axial side of the second convolution of a block, samples."""
        return kernel

    @property
    def layers(self) -> int:
        """Number of convolutions."""
        return 2 * self.blocks + 2

    @property
    def shrink(self) -> int:
        """How many px smaller than the input the output is along the lateral axis (paper, Eq. 2)."""
        return shrink(self.layers, self.kernel)

    @property
    def halo(self) -> int:
        """The margin a tile needs on each lateral side, px."""
        return self.shrink // 2

    @property
    def axial_halo(self) -> int:
        """The margin a tile needs on each axial side, input samples."""
        return (self.blocks + 2) * (self.kernel // 2) + self.blocks * (self.second(self.kernel) // 2)

    @property
    def receptive_field(self) -> int:
        """Lateral side of the input region that one output pixel depends on, px."""
        return self.shrink + 1

    def forward(self, image: Tensor) -> Tensor:
        """Refine an interpolated image, with gradients. (N, 1, H, W) -> (N, 1, H - shrink, W - shrink)."""
        return self.finished(self.tail(self.features(image)), image)

    @property
    def skip(self) -> tuple[int, int]:
        """How many px a block crops from each side of its skip path (axial, lateral); 2 px in the paper."""
        return self.kernel // 2 + self.second(self.kernel) // 2, 2 * (self.kernel // 2)

    def features(self, image: Tensor) -> Tensor:
        """Return the feature maps from which the tail makes the result, with gradients, (N, filters, H', W')."""
        x: Tensor = self.head(channels_last(image))  # (N, C, H - 2, W - 2)
        for first, second in zip(self.body[::2], self.body[1::2], strict=True):
            x = crop(x, *self.skip) + second(functional.relu(first(x)))
        return x

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Tensor:
        """Refine as :meth:`forward` does, without gradients and with bits that do not depend on H, W or N."""
        return self.finished(exact_conv(self._exact_features(image), self.tail), image)

    @torch.inference_mode()
    def predict_both(self, image: Tensor, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Return :meth:`predict`, and what a second tail makes of the same feature maps, in the same shape."""
        features = self._exact_features(image)
        return self.finished(exact_conv(features, self.tail), image), self.arranged(exact_conv(features, second))

    def arranged(self, output: Tensor) -> Tensor:
        """Return the output of a tail as an image (N, 1, H', W')."""
        return output

    def finished(self, output: Tensor, image: Tensor) -> Tensor:
        """Return the result, from the output of the tail."""
        return output.add_(crop(image, self.axial_halo, self.halo))

    def _exact_features(self, image: Tensor) -> Tensor:
        convs: list[Any] = list(self.body)
        x = exact_conv(channels_last(image), self.head)
        for first, second in zip(convs[::2], convs[1::2], strict=True):
            x = exact_conv(exact_conv(x, first).relu_(), second).add_(crop(x, *self.skip))
        return x


class SubpixelNetwork(ValidNetwork):
    """The valid network on the source grid; its tail predicts several SR voxels for each axial sample.

    The same stack of unpadded convolutions is applied to the acquired samples, ``factor`` times fewer than there are
    SR voxels. Its tail gives ``subpositions`` values for each sample, which are interleaved along the axial axis (H)
    at the end. It predicts the residual over the interpolation, which is zero before training. It does not pad,
    stride or resample, so it is crop-equivariant on the source grid (paper, Eq. 1).

    Axial samples lie ``factor`` times further apart, so fewer of them cover the same length: the second convolution of
    each block is one sample high, which makes the axial halo 9 samples instead of 16 and saves 3 convolutions in 10.

    Input (N, 1, H, W) source samples, output (N, 1, (H - 2 * axial_halo) * subpositions, W - shrink).
    """

    kind = "subpixel"
    on_source_grid = True

    @staticmethod
    def second(kernel: int) -> int:
        """Return 1: the second convolution of a block is purely lateral."""
        return 1

    def arranged(self, output: Tensor) -> Tensor:
        """Return the output of a tail with all sub-positions interleaved, (N, 1, H', W')."""
        return interleave(output)

    def finished(self, output: Tensor, image: Tensor) -> Tensor:
        """Return the residual at all sub-positions."""
        return self.arranged(output)


@dataclass(frozen=True)
class ErrorTail:
    """Makes the expected absolute error of a result from the feature maps of its network.

    Parameters
    ----------
    tail : Conv2d
        From the feature maps to the logarithm of the expected error, normalised.
    intervals : mapping
        Half-widths of the intervals that hold each share of :data:`LEVELS` of the voxels, in expected errors.
    """

    tail: nn.Conv2d
    intervals: Mapping[float, float]

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, intervals: Mapping[float, float]) -> ErrorTail:
        """Return the tail with these weights (subpositions, filters, kernel, kernel) and biases (subpositions,)."""
        each, filters, kernel, _ = weight.shape
        with torch.device("meta"):
            tail = nn.Conv2d(filters, each, kernel)
        tail.load_state_dict({"weight": weight, "bias": bias}, assign=True)
        use_channels_last(tail)
        return cls(tail.eval().requires_grad_(False), dict(intervals))


def spread(logarithm: Tensor) -> Tensor:
    """Return a normalised error from its logarithm: smooth, and neither tiny nor larger than the range."""
    return torch.sqrt(torch.exp(2 * logarithm.clamp(max=math.log(MOST))) + LEAST**2)


def interleave(image: Tensor) -> Tensor:
    """Rearrange the channels of (N, R, H, W) as the R sub-positions of each row: (N, 1, H * R, W)."""
    n, r, h, w = image.shape
    return image.permute(0, 2, 1, 3).reshape(n, 1, h * r, w)


class PaddedNetwork(nn.Module):
    """Zero-padded baseline similar to EDSR; its tiles have seams (paper, Table 1: 66 convolutions).

    Input and output (N, 1, H, W). Same arguments as :class:`ValidNetwork`, 32 blocks by default.
    """

    kind = "padded"
    on_source_grid = False

    def __init__(self, filters: int = 32, blocks: int = 32, kernel: int = 3, subpositions: int = 1) -> None:
        super().__init__()
        self.filters, self.blocks, self.kernel, self.subpositions = filters, blocks, kernel, subpositions
        pad = kernel // 2
        self.head = nn.Conv2d(1, filters, kernel, padding=pad)
        self.body = nn.ModuleList(nn.Conv2d(filters, filters, kernel, padding=pad) for _ in range(2 * blocks))
        self.tail = nn.Conv2d(filters, 1, kernel, padding=pad)
        initialise(self)
        use_channels_last(self)

    @property
    def layers(self) -> int:
        """Number of convolutions."""
        return 2 * self.blocks + 2

    shrink = 0
    halo = 0
    axial_halo = 0

    @property
    def receptive_field(self) -> int:
        """Side of the input region that one output pixel depends on, far from borders, px."""
        return shrink(self.layers, self.kernel) + 1

    def forward(self, image: Tensor) -> Tensor:
        """Refine an interpolated image (N, 1, H, W)."""
        x = self.head(channels_last(image))
        for first, second in zip(self.body[::2], self.body[1::2], strict=True):
            x = x + second(functional.relu(first(x)))
        return image + self.tail(x)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Tensor:
        """Refine without gradients."""
        out: Tensor = self(image)
        return out


Network = ValidNetwork | PaddedNetwork
NETWORKS: dict[str, type[ValidNetwork] | type[PaddedNetwork]] = {
    "subpixel": SubpixelNetwork,
    "valid": ValidNetwork,
    "padded": PaddedNetwork,
}


def build_network(kind: str, filters: int, blocks: int, kernel: int, subpositions: int = 1) -> Network:
    """Return an untrained network.

    Raises
    ------
    ArgumentError
        If the kind is unknown or a number is out of range.
    """
    if kind not in NETWORKS:
        raise ArgumentError(
            f"There is no network {kind!r}.", f"Choose one of {', '.join(NETWORKS)}.", setting="network"
        )
    if not 1 <= filters <= MAX_FILTERS:
        raise ArgumentError(
            f"A network has 1 to {MAX_FILTERS} filters, not {filters}.",
            "Choose a number in this range.",
            setting="filters",
        )
    if not 1 <= blocks <= MAX_BLOCKS:
        raise ArgumentError(
            f"A network has 1 to {MAX_BLOCKS} blocks, not {blocks}.", "Choose a number in this range.", setting="blocks"
        )
    if kernel not in (3, 5, 7):
        raise ArgumentError(f"A kernel has 3, 5 or 7 px, not {kernel}.", "Choose one of these.", setting="kernel")
    most = MAX_SUBPOSITIONS if NETWORKS[kind].on_source_grid else 1
    if not 1 <= subpositions <= most:
        raise ArgumentError(
            f"Network {kind!r} has 1 to {most} sub-positions, not {subpositions}.", "Choose a number in this range."
        )
    return NETWORKS[kind](filters, blocks, kernel, subpositions)


def subpositions_for(kind: str, factor: float) -> int:
    """Return how many outputs a network of this kind has for each axial sample: the factor, rounded up."""
    return math.ceil(factor - 1e-6) if kind in NETWORKS and NETWORKS[kind].on_source_grid else 1


def work(network: Network, rows: int, columns: int) -> int:
    """Return the multiply-adds of the convolutions for ``rows`` x ``columns`` output samples of one plane.

    Each unpadded layer also computes the margin that the next layers crop.
    """
    total = 0
    convs: list[Any] = [network.head, *network.body, network.tail]
    for conv in reversed(convs):
        total += rows * columns * conv.weight.numel()
        if not conv.padding[0]:
            rows, columns = (n + k - 1 for n, k in zip((rows, columns), conv.kernel_size, strict=True))
    return total


def crop(image: Tensor, rows: int, columns: int) -> Tensor:
    """Return ``image`` (N, C, H, W) with ``rows`` and ``columns`` cropped from each side."""
    return image[..., rows : image.shape[-2] - rows, columns : image.shape[-1] - columns]


def initialise(network: ValidNetwork | PaddedNetwork) -> None:
    """Initialise weights for ReLU layers: small in the second layers of blocks, zero in the tail."""
    convs: list[Any] = [network.head, *network.body]
    for number, conv in enumerate(convs):
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
        if number and number % 2 == 0:  # keeps the sum over many blocks at the scale of its input
            conv.weight.data.mul_(network.blocks**-0.5)
    nn.init.zeros_(network.tail.weight)
    nn.init.zeros_(network.tail.bias)  # type: ignore[arg-type]
