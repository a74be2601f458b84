"""What is exported: a trained network in its deployed form, with the preparation of its images inside."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class FromPixels(nn.Module):
    """Pixels (uint8 from 0 to 255, batch × channels × height × width) in, logits (float32, batch × classes) out.

    `mean`, `std`: per channel over the training images, with pixels from 0 to 1.
    """

    scale: Tensor
    bias: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        deviation = torch.tensor(std).view(-1, 1, 1)
        # As the images of training are prepared, so that not even a rounding differs.
        self.register_buffer("scale", 1 / (255 * deviation))
        self.register_buffer("bias", -torch.tensor(mean).view(-1, 1, 1) / deviation)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        logits: Tensor = self.network(images.float().mul_(self.scale).add_(self.bias))
        return logits


class Read(nn.Module):
    """An artifact as it was read from its file; for its device and for evaluation alone, whatever is asked of it."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch."""
        return self._run(images)
