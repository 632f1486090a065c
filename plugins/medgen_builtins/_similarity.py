"""How alike images are, where PSNR does not say it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv3d, pad


def ssim(
    one: Tensor, two: Tensor, window: int = 11, sigma: float = 1.5, data_range: float = 2.0
) -> Tensor:
    """Return structural similarity, `[batch, channel, *space]` (Wang et al. 2004, eq. 13).

    Weights are Gaussian along every axis; beyond the border the image is repeated.
    """
    reach = torch.arange(window, device=one.device, dtype=torch.float32) - window // 2
    line = torch.exp(-(reach**2) / (2 * sigma**2))
    plane, rim = line[:, None] * line / line.sum() ** 2, (window // 2,) * 2 * (one.ndim - 2)

    def mean(x: Tensor) -> Tensor:
        x = pad(x, rim, mode="replicate")
        if x.ndim == 4:
            return conv2d(x, plane.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])
        for each in (
            plane[None],
            (line / line.sum())[:, None, None],
        ):  # their product is the window
            x = conv3d(x, each.expand(x.shape[1], 1, -1, -1, -1), groups=x.shape[1])
        return x

    mu1, mu2, c1, c2 = mean(one), mean(two), (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    var1, var2, both = (
        mean(one * one) - mu1**2,
        mean(two * two) - mu2**2,
        mean(one * two) - mu1 * mu2,
    )
    return (2 * mu1 * mu2 + c1) * (2 * both + c2) / ((mu1**2 + mu2**2 + c1) * (var1 + var2 + c2))
