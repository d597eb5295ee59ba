"""Networks: valid ones (crop-equivariant) on the SR grid or on the source grid, and the zero-padded baseline."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NETWORKS", "PaddedNetwork", "SubpixelNetwork", "ValidNetwork", "build_network", "shrink", "work"]

MAX_FILTERS = 1024
MAX_SUBPOSITIONS = 32


def shrink(layers: int, kernel: int) -> int:
    """Return by how much a stack of valid convolutions shrinks an image (paper, Eq. 2), in px."""
    return 2 * layers * (kernel // 2)


def exact_conv(image: Tensor, conv: nn.Conv2d) -> Tensor:
    """Convolve without padding; on the CPU in float32 with the same bits for every image size and batch.

    ``torch.conv2d`` sends small inputs to another kernel, with other bits; calling oneDNN directly
    with channels-last activations does not. Needs no gradient.
    """
    has_onednn: bool = torch.backends.mkldnn.is_available()
    if image.device.type == "cpu" and image.dtype is torch.float32 and has_onednn:
        return torch.mkldnn_convolution(image, conv.weight, conv.bias, [0, 0], [1, 1], [1, 1], 1)
    return functional.conv2d(image, conv.weight, conv.bias)


def channels_last(image: Tensor) -> Tensor:
    """Return ``image`` (N, C, H, W) with channels-last strides, also where C is 1.

    torch takes a one-channel tensor for channels-last already, whatever its strides say, and oneDNN
    then picks its kernels by those strides: other bits for other tiles.
    """
    n, c, h, w = image.shape
    if image.stride() == (h * w * c, 1, w * c, c):
        return image
    out = torch.empty_strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype=image.dtype, device=image.device)
    return out.copy_(image)


def use_channels_last(network: nn.Module) -> None:
    """Lay the weights out for channels-last activations, in place."""
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
        Outputs for each input sample along the axial axis; 1, since input and output lie on the SR grid.

    Notes
    -----
    Takes (N, 1, H, W), gives (N, 1, H - shrink, W - shrink). The tail starts at zero and is added to
    the cropped input, so that the untrained network is the interpolation it is given.
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
        """Return how far along the axial axis the second convolution of a block reaches, samples."""
        return kernel

    @property
    def layers(self) -> int:
        """Number of convolutions."""
        return 2 * self.blocks + 2

    @property
    def shrink(self) -> int:
        """By how much the output is smaller than the input, px along the lateral axis (paper, Eq. 2)."""
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
        """Lateral side of the input region that one output pixel sees, px."""
        return self.shrink + 1

    def forward(self, image: Tensor) -> Tensor:
        """Refine an interpolated image, with gradients. (N, 1, H, W) -> (N, 1, H - shrink, W - shrink)."""
        return crop(image, self.axial_halo, self.halo) + self._tail(image)

    @property
    def _skip(self) -> tuple[int, int]:
        """By how much a block crops its skip path on each side (axial, lateral); 2 px in the paper."""
        return self.kernel // 2 + self.second(self.kernel) // 2, 2 * (self.kernel // 2)

    def _tail(self, image: Tensor) -> Tensor:
        x = self.head(channels_last(image))  # (N, C, H - 2, W - 2)
        for first, second in zip(self.body[::2], self.body[1::2], strict=True):
            x = crop(x, *self._skip) + second(functional.relu(first(x)))
        return self.tail(x)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Tensor:
        """Refine as :meth:`forward` does, without gradients and with bits that do not depend on H, W or N."""
        return self._exact_tail(image).add_(crop(image, self.axial_halo, self.halo))

    def _exact_tail(self, image: Tensor) -> Tensor:
        convs: list[Any] = list(self.body)
        x = exact_conv(channels_last(image), self.head)
        for first, second in zip(convs[::2], convs[1::2], strict=True):
            x = exact_conv(exact_conv(x, first).relu_(), second).add_(crop(x, *self._skip))
        return exact_conv(x, self.tail)


class SubpixelNetwork(ValidNetwork):
    """The valid network on the source grid; its tail predicts what each axial sample hides.

    The same stack of unpadded convolutions sees the acquired samples, ``factor`` times fewer than there are SR
    voxels, and its tail gives ``subpositions`` values for each, which are interleaved along the axial axis (H) at
    the very end. What it predicts is the residual over the interpolation, zero while untrained. Nothing in it
    pads, strides or resamples, so it is crop-equivariant on the source grid (paper, Eq. 1).

    Axial samples lie ``factor`` times further apart, so that less of them tells as much: the second convolution of
    each block is one sample high, which makes the axial halo 9 samples instead of 16 and saves 3 convolutions in 10.

    Takes (N, 1, H, W) source samples, gives (N, 1, (H - 2 * axial_halo) * subpositions, W - shrink).
    """

    kind = "subpixel"
    on_source_grid = True

    @staticmethod
    def second(kernel: int) -> int:
        """Return 1: the second convolution of a block is purely lateral."""
        return 1

    def forward(self, image: Tensor) -> Tensor:
        """Return the residual at all sub-positions, with gradients."""
        return interleave(self._tail(image))

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Tensor:
        """Return the residual without gradients, with bits that do not depend on H, W or N."""
        return interleave(self._exact_tail(image))


def interleave(image: Tensor) -> Tensor:
    """Lay the channels of (N, R, H, W) out as the R sub-positions of each row: (N, 1, H * R, W)."""
    n, r, h, w = image.shape
    return image.permute(0, 2, 1, 3).reshape(n, 1, h * r, w)


class PaddedNetwork(nn.Module):
    """Zero-padded baseline in the manner of EDSR; tiles of it show seams (paper, Table 1: 66 convolutions).

    Takes and gives (N, 1, H, W). Same arguments as :class:`ValidNetwork`, 32 blocks by default.
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
        """Side of the input region that one output pixel sees where no border is near, px."""
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
    ValueError
        If the kind is unknown or a number is beyond what this version can hold.
    """
    if kind not in NETWORKS:
        raise ValueError(f"Got network {kind!r}, expected one of {', '.join(NETWORKS)}: choose one of these.")
    if not (1 <= filters <= MAX_FILTERS and 1 <= blocks <= 64 and kernel in (3, 5, 7)):
        raise ValueError(
            f"Got {filters} filters, {blocks} blocks, kernel {kernel}, expected 1 to {MAX_FILTERS} filters, "
            "1 to 64 blocks and a kernel of 3, 5 or 7: correct them."
        )
    most = MAX_SUBPOSITIONS if NETWORKS[kind].on_source_grid else 1
    if not 1 <= subpositions <= most:
        raise ValueError(f"Got {subpositions} sub-positions, expected 1 to {most} for network {kind!r}: correct it.")
    return NETWORKS[kind](filters, blocks, kernel, subpositions)


def subpositions_for(kind: str, factor: float) -> int:
    """Return how many outputs a network of that kind gives for each axial sample: the factor, rounded up."""
    return math.ceil(factor - 1e-6) if kind in NETWORKS and NETWORKS[kind].on_source_grid else 1


def work(network: Network, rows: int, columns: int) -> int:
    """Return the multiply-adds of the convolutions for ``rows`` x ``columns`` output samples of one plane.

    Each unpadded layer must give the margin that the layers after it take off.
    """
    total = 0
    convs: list[Any] = [network.head, *network.body, network.tail]
    for conv in reversed(convs):
        total += rows * columns * conv.weight.numel()
        if not conv.padding[0]:
            rows, columns = (n + k - 1 for n, k in zip((rows, columns), conv.kernel_size, strict=True))
    return total


def crop(image: Tensor, rows: int, columns: int) -> Tensor:
    """Return ``image`` (N, C, H, W) without so many ``rows`` and ``columns`` on each side."""
    return image[..., rows : image.shape[-2] - rows, columns : image.shape[-1] - columns]


def initialise(network: ValidNetwork | PaddedNetwork) -> None:
    """Draw weights for ReLU layers; second layers of blocks start small and the tail at zero."""
    convs: list[Any] = [network.head, *network.body]
    for number, conv in enumerate(convs):
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
        if number and number % 2 == 0:  # keeps the sum over many blocks at the scale of its input
            conv.weight.data.mul_(network.blocks**-0.5)
    nn.init.zeros_(network.tail.weight)
    nn.init.zeros_(network.tail.bias)  # type: ignore[arg-type]
