"""The two networks of the paper: valid (crop-equivariant) and zero-padded (to compare with)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NETWORKS", "PaddedNetwork", "ValidNetwork", "build_network", "shrink"]

MAX_FILTERS = 1024


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

    Notes
    -----
    Takes (N, 1, H, W), gives (N, 1, H - shrink, W - shrink). The tail starts at zero and is added to
    the cropped input, so that the untrained network is the interpolation it is given.
    """

    kind = "valid"

    def __init__(self, filters: int = 32, blocks: int = 7, kernel: int = 3) -> None:
        super().__init__()
        self.filters, self.blocks, self.kernel = filters, blocks, kernel
        self.head = nn.Conv2d(1, filters, kernel)
        self.body = nn.ModuleList(nn.Conv2d(filters, filters, kernel) for _ in range(2 * blocks))
        self.tail = nn.Conv2d(filters, 1, kernel)
        initialise(self)
        use_channels_last(self)

    @property
    def layers(self) -> int:
        """Number of convolutions."""
        return 2 * self.blocks + 2

    @property
    def shrink(self) -> int:
        """By how much the output is smaller than the input, px along each axis (paper, Eq. 2)."""
        return shrink(self.layers, self.kernel)

    @property
    def halo(self) -> int:
        """The margin a tile needs on each side, SR px."""
        return self.shrink // 2

    @property
    def receptive_field(self) -> int:
        """Side of the input region that one output pixel sees, px."""
        return self.shrink + 1

    def forward(self, image: Tensor) -> Tensor:
        """Refine an interpolated image, with gradients. (N, 1, H, W) -> (N, 1, H - shrink, W - shrink)."""
        skip = 2 * (self.kernel // 2)
        x = self.head(channels_last(image))  # (N, C, H - 2, W - 2)
        for first, second in zip(self.body[::2], self.body[1::2], strict=True):
            x = crop(x, skip) + second(functional.relu(first(x)))
        return crop(image, self.halo) + self.tail(x)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Tensor:
        """Refine as :meth:`forward` does, without gradients and with bits that do not depend on H, W or N."""
        skip = 2 * (self.kernel // 2)
        convs: list[Any] = list(self.body)
        x = exact_conv(channels_last(image), self.head)
        for first, second in zip(convs[::2], convs[1::2], strict=True):
            x = exact_conv(exact_conv(x, first).relu_(), second).add_(crop(x, skip))
        return exact_conv(x, self.tail).add_(crop(image, self.halo))


class PaddedNetwork(nn.Module):
    """Zero-padded baseline in the manner of EDSR; tiles of it show seams (paper, Table 1: 66 convolutions).

    Takes and gives (N, 1, H, W). Same arguments as :class:`ValidNetwork`, 32 blocks by default.
    """

    kind = "padded"

    def __init__(self, filters: int = 32, blocks: int = 32, kernel: int = 3) -> None:
        super().__init__()
        self.filters, self.blocks, self.kernel = filters, blocks, kernel
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
NETWORKS: dict[str, type[ValidNetwork] | type[PaddedNetwork]] = {"valid": ValidNetwork, "padded": PaddedNetwork}


def build_network(kind: str, filters: int, blocks: int, kernel: int) -> Network:
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
    return NETWORKS[kind](filters, blocks, kernel)


def crop(image: Tensor, margin: int) -> Tensor:
    """Return ``image`` (N, C, H, W) without ``margin`` px on each side."""
    return image[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin]


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
