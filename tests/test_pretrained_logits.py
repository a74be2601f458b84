"""Checkpoints in the official layouts give the logits of the official networks, written out here in plain functions.

Each network is a function of images that draws a weight, under its official name and in its official shape, where it
first needs it; what it drew is the checkpoint. Images stay batch × channels × height × width, as in the official code.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from explore.architecture.network import Network
from explore.architecture.pretrained import load_pretrained
from explore.architecture.published import published
from explore.architecture.spec import Architecture

CLASSES = 5


class Drawn(dict[str, Tensor]):
    """Weights by name, each drawn when it is asked for, none of them trivial."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def draw(self, name: str, *shape: int) -> Tensor:
        assert name not in self
        self[name] = torch.randn(shape, generator=self.generator) / max(torch.Size(shape[1:]).numel(), 1) ** 0.5
        return self[name]

    def linear(self, name: str, x: Tensor, outputs: int) -> Tensor:
        weight = self.draw(f"{name}.weight", outputs, x.shape[-1])
        return F.linear(x, weight, self.draw(f"{name}.bias", outputs))

    def product(self, name: str, x: Tensor, outputs: int) -> Tensor:
        return F.linear(x, self.draw(f"{name}.weight", outputs, x.shape[-1]))

    def conv(self, name: str, x: Tensor, outputs: int, kernel: int = 1, **options: int) -> Tensor:
        weight = self.draw(f"{name}.weight", outputs, x.shape[1] // options.get("groups", 1), kernel, kernel)
        return F.conv2d(x, weight, self.draw(f"{name}.bias", outputs), **options)

    def layer_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        width = x.shape[-1]
        return F.layer_norm(x, (width,), self.draw(f"{name}.weight", width), self.draw(f"{name}.bias", width), eps)

    def group_norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, self.draw(f"{name}.weight", x.shape[1]), self.draw(f"{name}.bias", x.shape[1]))

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias, mean = (self.draw(f"{name}.{one}", x.shape[1]) for one in ("weight", "bias", "running_mean"))
        variance = self.draw(f"{name}.running_var", x.shape[1]).abs_().add_(0.5)
        return F.batch_norm(x, mean, variance, weight, bias)

    def mlp(self, name: str, x: Tensor, hidden: int) -> Tensor:
        return self.linear(f"{name}.fc2", F.gelu(self.linear(f"{name}.fc1", x, hidden)), x.shape[-1])

    def conv_mlp(self, name: str, x: Tensor, hidden: int) -> Tensor:
        return self.conv(f"{name}.fc2", F.gelu(self.conv(f"{name}.fc1", x, hidden)), x.shape[1])


def vip(w: Drawn, image: Tensor) -> Tensor:
    x = w.conv("patch_embed.proj", image, 8, 7, stride=7).permute(0, 2, 3, 1)
    for place, segments in ((0, 4), (2, 2), (3, 2)):
        if place == 2:
            x = w.conv("network.1.proj", x.permute(0, 3, 1, 2), 16, 2, stride=2).permute(0, 2, 3, 1)
        block, (batch, height, width, channels) = f"network.{place}.0.", x.shape
        normed = w.layer_norm(f"{block}norm1", x, 1e-5)
        pieces = normed.reshape(batch, height, width, segments, -1)
        # Segment × column × (row, channel of the segment), and row × segment × (column, channel of the segment).
        rows = w.product(
            f"{block}attn.mlp_h", pieces.permute(0, 3, 2, 1, 4).reshape(batch, segments, width, -1), channels
        )
        rows = rows.reshape(batch, segments, width, height, -1).permute(0, 3, 2, 1, 4).reshape(x.shape)
        columns = w.product(
            f"{block}attn.mlp_w", pieces.permute(0, 1, 3, 2, 4).reshape(batch, height, segments, -1), channels
        )
        columns = columns.reshape(batch, height, segments, width, -1).permute(0, 1, 3, 2, 4).reshape(x.shape)
        single = w.product(f"{block}attn.mlp_c", normed, channels)
        mean = (rows + columns + single).mean((1, 2))
        logits = w.linear(
            f"{block}attn.reweight.fc2",
            F.gelu(w.linear(f"{block}attn.reweight.fc1", mean, channels // 4)),
            3 * channels,
        )
        first, second, third = logits.reshape(batch, 1, 1, channels, 3).softmax(-1).unbind(-1)
        x = x + w.linear(f"{block}attn.proj", rows * first + columns * second + single * third, channels)
        x = x + w.mlp(f"{block}mlp", w.layer_norm(f"{block}norm2", x, 1e-5), 3 * channels)
    return w.linear("head", w.layer_norm("norm", x, 1e-5).mean((1, 2)), CLASSES)


def resmlp(w: Drawn, image: Tensor) -> Tensor:
    def affine(name: str, x: Tensor) -> Tensor:
        return x * w.draw(f"{name}.alpha", 8) + w.draw(f"{name}.beta", 8)

    x = w.conv("patch_embed.proj", image, 8, 16, stride=16).flatten(2).transpose(1, 2)
    for index in (0, 1):
        block = f"blocks.{index}."
        mixed = w.linear(f"{block}attn", affine(f"{block}norm1", x).transpose(1, 2), x.shape[1]).transpose(1, 2)
        x = x + w.draw(f"{block}gamma_1", 8) * mixed
        x = x + w.draw(f"{block}gamma_2", 8) * w.mlp(f"{block}mlp", affine(f"{block}norm2", x), 32)
    return w.linear("head", affine("norm", x).mean(1), CLASSES)


def gmlp(w: Drawn, image: Tensor) -> Tensor:
    x = w.conv("stem.proj", image, 8, 16, stride=16).flatten(2).transpose(1, 2)
    for index in (0, 1):
        block = f"blocks.{index}."
        hidden = F.gelu(w.linear(f"{block}mlp_channels.fc1", w.layer_norm(f"{block}norm", x, 1e-6), 48))
        gate = w.layer_norm(f"{block}mlp_channels.gate.norm", hidden[..., 24:], 1e-5).transpose(1, 2)
        gate = w.linear(f"{block}mlp_channels.gate.proj", gate, x.shape[1]).transpose(1, 2)
        x = x + w.linear(f"{block}mlp_channels.fc2", hidden[..., :24] * gate, 8)
    return w.linear("head", w.layer_norm("norm", x, 1e-6).mean(1), CLASSES)


def gmixer(w: Drawn, image: Tensor) -> Tensor:
    def gated(name: str, x: Tensor, hidden: int) -> Tensor:
        value, gate = w.linear(f"{name}.fc1", x, 2 * hidden).chunk(2, -1)
        return w.linear(f"{name}.fc2", value * F.silu(gate), x.shape[-1])

    x = w.conv("stem.proj", image, 8, 16, stride=16).flatten(2).transpose(1, 2)
    for index in (0, 1):
        block = f"blocks.{index}."
        x = x + gated(f"{block}mlp_tokens", w.layer_norm(f"{block}norm1", x, 1e-6).transpose(1, 2), 4).transpose(1, 2)
        x = x + gated(f"{block}mlp_channels", w.layer_norm(f"{block}norm2", x, 1e-6), 16)
    return w.linear("head", w.layer_norm("norm", x, 1e-6).mean(1), CLASSES)


def convmixer(w: Drawn, image: Tensor) -> Tensor:
    x = w.batch_norm("2", F.relu(w.conv("0", image, 8, 7, stride=7)))
    for index in (3, 4):
        x = x + w.batch_norm(f"{index}.0.fn.2", F.relu(w.conv(f"{index}.0.fn.0", x, 8, 7, padding=3, groups=8)))
        x = w.batch_norm(f"{index}.3", F.relu(w.conv(f"{index}.1", x, 8)))
    return w.linear("7", x.mean((2, 3)), CLASSES)


def poolformer(w: Drawn, image: Tensor) -> Tensor:
    x = w.conv("patch_embed.proj", image, 8, 7, stride=4, padding=2)
    for place in (0, 2):
        if place == 2:
            x = w.conv("network.1.proj", x, 16, 3, stride=2, padding=1)
        block, width = f"network.{place}.0.", x.shape[1]
        normed = w.group_norm(f"{block}norm1", x)
        pooled = F.avg_pool2d(normed, 3, 1, 1, count_include_pad=False) - normed
        x = x + w.draw(f"{block}layer_scale_1", width).view(-1, 1, 1) * pooled
        mixed = w.conv_mlp(f"{block}mlp", w.group_norm(f"{block}norm2", x), 4 * width)
        x = x + w.draw(f"{block}layer_scale_2", width).view(-1, 1, 1) * mixed
    return w.linear("head", w.group_norm("norm", x).mean((2, 3)), CLASSES)


def asmlp(w: Drawn, image: Tensor) -> Tensor:
    def shifted(x: Tensor, axis: int) -> Tensor:
        # Two groups of five channels and so on: group g moves by g - 2, zeros come in.
        groups = []
        for group, part in enumerate(x.chunk(5, 1)):
            moved = torch.zeros_like(part)
            for place in range(x.shape[axis]):
                if 0 <= place - (group - 2) < x.shape[axis]:
                    moved.select(axis, place).copy_(part.select(axis, place - (group - 2)))
            groups.append(moved)
        return torch.cat(groups, 1)

    x = w.group_norm("patch_embed.norm", w.conv("patch_embed.proj", image, 10, 4, stride=4))
    for stage in (0, 1):
        block, width = f"layers.{stage}.blocks.0.", x.shape[1]
        mixing = f"{block}axial_shift."
        y = F.gelu(w.group_norm(f"{mixing}norm1", w.conv(f"{mixing}conv1", w.group_norm(f"{block}norm1", x), width)))
        along_width = F.gelu(w.conv(f"{mixing}conv2_1", shifted(y, 3), width))
        along_height = F.gelu(w.conv(f"{mixing}conv2_2", shifted(y, 2), width))
        x = x + w.conv(f"{mixing}conv3", w.group_norm(f"{mixing}norm2", along_width + along_height), width)
        x = x + w.conv_mlp(f"{block}mlp", w.group_norm(f"{block}norm2", x), 4 * width)
        if stage == 0:
            corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            normed = w.group_norm("layers.0.downsample.norm", torch.cat(corners, 1))
            x = F.conv2d(normed, w.draw("layers.0.downsample.reduction.weight", 20, 40, 1, 1))
    return w.linear("head", w.group_norm("norm", x).mean((2, 3)), CLASSES)


def hiremlp(w: Drawn, image: Tensor) -> Tensor:
    x = F.relu(w.batch_norm("patch_embed.norm", w.conv("patch_embed.proj", image, 8, 7, stride=4, padding=2)))

    def regions(name: str, x: Tensor) -> Tensor:
        """Along the width: four patches in a region, those of one channel one behind the other."""
        batch, channels, height, width = x.shape
        joined = x.reshape(batch, channels, height, width // 4, 4).permute(0, 1, 4, 2, 3).flatten(1, 2)
        hidden = F.conv2d(joined, w.draw(f"{name}1.weight", channels // 2, 4 * channels, 1, 1))
        mixed = w.conv(f"{name}2", F.relu(w.batch_norm(f"{name}1_norm", hidden)), 4 * channels)
        return mixed.reshape(batch, channels, 4, height, width // 4).permute(0, 1, 3, 4, 2).reshape(x.shape)

    for number, shift in enumerate((0, 2)):
        block = f"network.0.{number}."
        normed = w.batch_norm(f"{block}norm1", x)
        moved = normed.roll(shift, 2).transpose(2, 3)
        along_height = regions(f"{block}attn.mlp_h", moved).transpose(2, 3).roll(-shift, 2)
        along_width = regions(f"{block}attn.mlp_w", normed.roll(shift, 3)).roll(-shift, 3)
        single = w.conv(f"{block}attn.mlp_c", normed, 8)
        mean = (along_height + along_width + single).mean((2, 3), keepdim=True)
        hidden = F.gelu(w.conv(f"{block}attn.reweight.fc1", mean, 2))
        logits = w.conv(f"{block}attn.reweight.fc2", hidden, 24)
        first, second, third = logits.reshape(-1, 8, 3).softmax(2)[:, :, None, None].unbind(-1)
        x = x + w.conv(f"{block}attn.proj", along_height * first + along_width * second + single * third, 8)
        x = x + w.conv_mlp(f"{block}mlp", w.batch_norm(f"{block}norm2", x), 32)
    return w.linear("head", w.batch_norm("norm", x).mean((2, 3)), CLASSES)


def shrunk(name: str, image_size: int, sizes: list[tuple[int, int]]) -> Architecture:
    """A published model with another depth and width of each stage, and without the stages behind these."""
    spec = published(name)
    stages = tuple(
        replace(stage, depth=depth, width=width) for stage, (depth, width) in zip(spec.stages, sizes, strict=False)
    )
    return replace(spec, image_size=image_size, classes=CLASSES, stages=stages)


CASES = {
    "vip": (vip, shrunk("vip_s7", 28, [(1, 8), (1, 16), (1, 16)])),
    "resmlp": (resmlp, shrunk("resmlp_s12", 48, [(2, 8)])),
    "gmlp_timm": (gmlp, shrunk("gmlp_ti16", 48, [(2, 8)])),
    "gmixer_timm": (gmixer, shrunk("gmixer_12", 48, [(2, 8)])),
    "convmixer": (convmixer, shrunk("convmixer_768_32", 28, [(2, 8)])),
    "poolformer": (poolformer, shrunk("poolformer_s12", 32, [(1, 8), (1, 16)])),
    "asmlp": (asmlp, shrunk("asmlp_t", 32, [(1, 10), (1, 20)])),
    "hiremlp": (hiremlp, shrunk("hiremlp_t", 32, [(2, 8)])),
}


@pytest.mark.parametrize("layout", CASES)
def test_official_weights_give_the_official_logits(layout: str, tmp_path: Path) -> None:
    reference: Callable[[Drawn, Tensor], Tensor]
    reference, spec = CASES[layout]
    weights, path = Drawn(), tmp_path / "official.pth"
    images = torch.randn(2, 3, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(1))
    expected = reference(weights, images)
    torch.save(dict(weights), path)
    network = Network(spec).eval()
    assert load_pretrained(network, path).layout == layout
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=1e-5)
