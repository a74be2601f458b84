"""Augmentation changes images as its papers say, each image on its own, and batches are the same by seed and epoch.

The functions that change images are held to slow references written with plain indexing; the draws to their ranges and
distributions; the loader to being complete, resumable and normalised.

    python -m pytest tests/test_augmentation.py
"""

import os
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from explore.data.augmentation import ERASED_AREA, Draws, Shifted, draw, erase, flip, inside, mix
from explore.data.dataset import Split
from explore.data.gathering import CPU_SHARE, Streamed, fits, threads_for
from explore.data.loader import Batches
from explore.data.options import Augmentation

EVERYTHING = Augmentation(shift=2, flip=True, mixup=0.4, cutmix=1.0, erasing=0.5)
SHAPES = st.tuples(st.integers(1, 6), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9))
SEEDS = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=50)


def random_images(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def draws_of(augmentation: Augmentation, count: int, height: int, width: int, seed: int) -> Draws:
    return draw(augmentation, count, height, width, np.random.default_rng(seed))


def split_of(count: int, *, channels: int = 1, side: int = 8, classes: int = 4) -> Split:
    return Split(random_images((count, channels, side, side), seed=0), torch.arange(count) % classes)


def batches_of(split: Split, batch_size: int = 16, **options: object) -> Batches:
    channels = split.images.shape[1]
    defaults = {"device": "cpu", "mean": [0.5] * channels, "std": [0.25] * channels, "classes": 4}
    return Batches(split, batch_size, **{**defaults, **options})  # type: ignore[arg-type]


def one_pass(batches: Batches, epoch: int) -> list[tuple[Tensor, Tensor]]:
    batches.set_epoch(epoch)
    return list(batches)


def equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True))


# --- shift, flip, erase


@quick
@given(SHAPES, st.integers(1, 4), SEEDS)
def test_shift_is_a_crop_from_the_black_padded_image(shape: tuple[int, int, int, int], margin: int, seed: int) -> None:
    images = random_images(shape, seed)
    count, _, height, width = shape
    offsets = draws_of(Augmentation(shift=margin), count, height, width, seed).offsets
    assert offsets is not None
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    padded = torch.nn.functional.pad(images, (margin,) * 4)
    expected = [
        padded[row, :, top : top + height, left : left + width]
        for row, (top, left) in zip(rows.tolist(), offsets.tolist(), strict=True)
    ]
    assert torch.equal(Shifted(images, margin).pick(rows, offsets), torch.stack(expected))


@quick
@given(SHAPES, st.integers(1, 4), SEEDS)
def test_shift_by_nothing_is_identity(shape: tuple[int, int, int, int], margin: int, seed: int) -> None:
    images = random_images(shape, seed)
    rows = torch.arange(shape[0])
    assert torch.equal(Shifted(images, margin).pick(rows, torch.full((shape[0], 2), margin)), images)


@quick
@given(SHAPES, SEEDS)
def test_flip_exchanges_columns_of_the_marked_images_and_undoes_itself(
    shape: tuple[int, int, int, int], seed: int
) -> None:
    images = random_images(shape, seed)
    marked = draws_of(Augmentation(flip=True), *shape[:1], *shape[2:], seed).flipped
    assert marked is not None
    once = flip(images, marked)
    for before, after, is_marked in zip(images, once, marked, strict=True):
        assert torch.equal(after, before[:, :, list(range(shape[3] - 1, -1, -1))] if is_marked else before)
    assert torch.equal(flip(once, marked), images)


@quick
@given(SHAPES, SEEDS)
def test_erase_clears_its_box_and_nothing_else(shape: tuple[int, int, int, int], seed: int) -> None:
    images = torch.ones(shape)
    boxes = draws_of(Augmentation(erasing=1.0), shape[0], *shape[2:], seed).erased
    assert boxes is not None
    for after, (top, bottom, left, right) in zip(erase(images, boxes), boxes.tolist(), strict=True):
        assert 0 <= top < bottom <= shape[2]
        assert 0 <= left < right <= shape[3]
        assert not after[:, top:bottom, left:right].any()
        assert after.sum() == shape[1] * (shape[2] * shape[3] - (bottom - top) * (right - left))


def test_erased_area_is_in_the_range_of_the_paper() -> None:
    boxes = draws_of(Augmentation(erasing=1.0), 4000, 64, 64, seed=0).erased
    assert boxes is not None
    area = ((boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])) / 64**2
    assert ERASED_AREA[0] * 0.8 < area.min() < 0.03
    assert 0.37 < area.max() < ERASED_AREA[1] * 1.05


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (0.25, 500), (1.0, 2000)])
def test_erasing_happens_with_its_probability(probability: float, expected: int) -> None:
    boxes = draws_of(Augmentation(erasing=probability), 2000, 8, 8, seed=0).erased
    erased = 0 if boxes is None else int(boxes.any(dim=1).sum())
    assert abs(erased - expected) <= 60 * (0 < probability < 1)


# --- mixup and cutmix


def mixed(augmentation: Augmentation, images: Tensor, seed: int, classes: int) -> tuple[Draws, Tensor, Tensor, Tensor]:
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, classes, len(images)))
    draws = draws_of(augmentation, len(images), *images.shape[2:], seed)
    return draws, labels, *mix(images, labels, classes, draws.kept, draws.cut)


MIXING = st.sampled_from([Augmentation(mixup=0.3), Augmentation(cutmix=1.0), Augmentation(mixup=1.0, cutmix=0.5)])


@quick
@given(MIXING, SHAPES, SEEDS, st.integers(2, 5))
def test_label_mass_is_one(
    augmentation: Augmentation, shape: tuple[int, int, int, int], seed: int, classes: int
) -> None:
    _, _, _, targets = mixed(augmentation, random_images(shape, seed).float(), seed, classes)
    assert targets.shape == (shape[0], classes)
    assert targets.dtype == torch.float32
    assert targets.min() >= 0
    torch.testing.assert_close(targets.sum(1), torch.ones(shape[0]))


@quick
@given(MIXING, SHAPES, SEEDS)
def test_each_label_has_the_share_of_pixels_that_its_image_has(
    augmentation: Augmentation, shape: tuple[int, int, int, int], seed: int
) -> None:
    """With images that are constant and equal to their own number, every pixel says whose it is."""
    count = shape[0]
    own = torch.arange(count)
    images = torch.nn.functional.one_hot(own, count).float()[:, :, None, None].expand(-1, -1, shape[2], shape[3])
    draws = draws_of(augmentation, count, shape[2], shape[3], seed)
    pixels, targets = mix(images.contiguous(), own, count, draws.kept, draws.cut)
    torch.testing.assert_close(pixels.mean(dim=(2, 3)), targets)


def test_mixup_is_the_convex_combination_with_the_image_before() -> None:
    images = random_images((8, 3, 5, 5), seed=1).float()
    draws, labels, result, targets = mixed(Augmentation(mixup=0.4), images, 1, classes=3)
    assert draws.cut is None
    assert draws.kept is not None
    one_hot = torch.nn.functional.one_hot(labels, 3)
    for i, share in enumerate(draws.kept.tolist()):
        torch.testing.assert_close(result[i], share * images[i] + (1 - share) * images[i - 1])
        torch.testing.assert_close(targets[i], share * one_hot[i] + (1 - share) * one_hot[i - 1])


def test_cutmix_pastes_a_box_of_the_image_before() -> None:
    images = random_images((8, 3, 6, 7), seed=2).float()
    draws, _, result, _ = mixed(Augmentation(cutmix=1.0), images, 2, classes=3)
    assert draws.kept is None
    assert draws.cut is not None
    for i, (top, bottom, left, right) in enumerate(draws.cut.tolist()):
        expected = images[i].clone()
        expected[:, top:bottom, left:right] = images[i - 1, :, top:bottom, left:right]
        assert torch.equal(result[i], expected)


def test_with_both_each_image_takes_one_of_them() -> None:
    draws = draws_of(Augmentation(mixup=1.0, cutmix=1.0), 2000, 16, 16, seed=0)
    assert draws.kept is not None
    assert draws.cut is not None
    takes_mixup, takes_cutmix = draws.kept < 1, draws.cut.any(dim=1)
    assert not (takes_mixup & takes_cutmix).any()
    assert abs(int(takes_mixup.sum()) - 1000) < 100


def test_shares_follow_the_beta_distribution() -> None:
    kept = draws_of(Augmentation(mixup=0.2), 20_000, 4, 4, seed=0).kept
    assert kept is not None
    assert abs(kept.mean() - 0.5) < 0.01
    assert abs(kept.var() - 1 / (4 * (2 * 0.2 + 1))) < 0.005  # the variance of Beta(α, α)


@quick
@given(SHAPES, SEEDS)
def test_inside_marks_as_many_pixels_as_the_box_has(shape: tuple[int, int, int, int], seed: int) -> None:
    boxes = draws_of(Augmentation(cutmix=1.0), shape[0], *shape[2:], seed).cut
    assert boxes is not None
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    assert torch.equal(inside(boxes, *shape[2:]).sum(dim=(1, 2, 3)), area)


# --- draws


def test_every_image_has_draws_of_its_own() -> None:
    images = random_images((1, 3, 16, 16), seed=0).expand(64, -1, -1, -1)
    batches = batches_of(Split(images, torch.zeros(64, dtype=torch.int64)), 64, augmentation=EVERYTHING)
    (result, _), *_ = list(batches)
    assert len({image.numpy().tobytes() for image in result}) > 60


def test_what_is_off_is_not_drawn() -> None:
    assert draws_of(Augmentation(), 5, 8, 8, seed=0) == Draws()


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (Augmentation(shift=-1), r"data\.augmentation\.shift must be at least 0 \(0 = off\), got -1"),
        (Augmentation(mixup=-0.1), r"data\.augmentation\.mixup must be at least 0 \(0 = off\), got -0\.1"),
        (Augmentation(cutmix=-2.0), r"data\.augmentation\.cutmix must be at least 0"),
        (Augmentation(erasing=1.5), r"data\.augmentation\.erasing must be a probability from 0 to 1, got 1\.5"),
    ],
)
def test_augmentation_out_of_range_is_refused(augmentation: Augmentation, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches_of(split_of(8), augmentation=augmentation)


# --- batches


@quick
@given(st.integers(1, 40), st.integers(1, 50), st.booleans(), st.booleans())
def test_a_pass_has_every_image_once(count: int, batch_size: int, shuffle: bool, drop_last: bool) -> None:
    split = Split(random_images((count, 1, 2, 2), seed=0), torch.arange(count))
    batches = batches_of(split, batch_size, shuffle=shuffle, drop_last=drop_last)
    parts = list(batches)
    assert len(parts) == len(batches) > 0
    seen = torch.cat([labels for _, labels in parts]).tolist()
    assert len(set(seen)) == len(seen)
    size = min(batch_size, count)
    assert len(seen) == (count // size * size if drop_last else count)
    assert shuffle or seen == list(range(len(seen)))


def test_images_are_normalised_per_channel() -> None:
    split = split_of(32, channels=3)
    mean, std = [0.1, 0.5, 0.9], [0.2, 0.3, 0.4]
    (images, labels), *_ = batches_of(split, 32, mean=mean, std=std)
    expected = (split.images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(images, expected.float(), atol=1e-6, rtol=1e-6)
    assert torch.equal(labels, split.labels)
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("augmentation", [None, Augmentation(shift=1), EVERYTHING])
def test_an_epoch_depends_on_seed_and_number_only(augmentation: Augmentation | None) -> None:
    split = split_of(50)
    batches = batches_of(split, augmentation=augmentation, seed=3, shuffle=True)
    epochs = [one_pass(batches, epoch) for epoch in range(4)]
    resumed = batches_of(split, augmentation=augmentation, seed=3, shuffle=True)
    assert equal(one_pass(resumed, 3), epochs[3])
    assert equal(one_pass(batches, 1), epochs[1])
    assert not equal(epochs[0], epochs[1])
    assert not equal(one_pass(batches_of(split, augmentation=augmentation, seed=4, shuffle=True), 0), epochs[0])


@pytest.mark.parametrize("augmentation", [None, Augmentation(flip=True), Augmentation(shift=2), EVERYTHING])
@pytest.mark.parametrize(("count", "drop_last"), [(100, False), (100, True), (16, False), (5, True), (17, False)])
def test_images_that_are_streamed_are_those_that_are_resident(
    augmentation: Augmentation | None, count: int, drop_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"augmentation": augmentation, "shuffle": True, "drop_last": drop_last}
    split = split_of(count, channels=3, side=8 + count % 2)  # of 243 bytes as well, which are no whole words
    resident = batches_of(split, **options)
    monkeypatch.setattr("explore.data.loader.fits", lambda images, margin, device: False)
    streamed = batches_of(split, **options)
    assert type(streamed._images) is not type(resident._images)
    for epoch in (0, 3):
        theirs, ours = one_pass(resident, epoch), one_pass(streamed, epoch)
        assert len(theirs) == len(ours) == len(streamed)
        assert equal(theirs, ours)


def test_several_threads_gather_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a GPU; some batches take longer than the next."""
    resident = batches_of(split_of(400, channels=3), shuffle=True)
    gather = Streamed._gather

    def unevenly(own: Streamed, rows: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        time.sleep(0.003 * (int(rows[0]) % 4))
        return gather(own, rows)

    monkeypatch.setattr(Streamed, "_gather", unevenly)
    monkeypatch.setattr("explore.data.loader.fits", lambda images, margin, device: False)
    monkeypatch.setattr("explore.data.gathering.threads_for", lambda device: 4)
    streamed = batches_of(split_of(400, channels=3), shuffle=True)
    assert equal(one_pass(resident, 1), one_pass(streamed, 1))


def test_a_gpu_has_as_many_threads_to_gather_as_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for own, threads in ((1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr(torch, "get_num_threads", lambda own=own: own)
        assert threads_for(torch.device("cuda", 0)) == threads
        assert threads_for(torch.device("cpu")) == 1


def test_a_pass_that_is_left_in_the_middle_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explore.data.loader.fits", lambda images, margin, device: False)
    before, streamed = {*threading.enumerate()}, batches_of(split_of(1000), 1)
    passes = [iter(streamed), iter(streamed.seeded(7))]
    for one in passes:
        next(one)
    [gathering] = {*threading.enumerate()} - before  # for all passes
    del passes, one, streamed
    gathering.join(60)
    assert not gathering.is_alive()


@pytest.mark.parametrize("limit", [None, 2**28, 2**62])
def test_a_split_is_resident_up_to_a_share_of_the_memory(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explore.control_groups.memory_limit", lambda: limit)
    memory = min(limit or 2**62, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    cpu, most = torch.device("cpu"), int(memory * CPU_SHARE) // 64

    def images(count: int) -> Tensor:
        return torch.empty((count, 1, 8, 8), dtype=torch.uint8, device="meta")

    assert fits(images(most), 0, cpu)
    assert not fits(images(most + 1), 0, cpu)
    # A padded copy of 12 × 10 pixels for each, twice while it is made.
    assert fits(images(int(most * 64 / (64 + 2 * 120)) - 1), 2, cpu)
    assert not fits(images(int(most * 64 / (64 + 2 * 120)) + 2), 2, cpu)


def test_random_state_of_the_program_does_not_matter() -> None:
    batches = batches_of(split_of(20), augmentation=EVERYTHING, shuffle=True)
    torch.manual_seed(0)
    first, state = list(batches), torch.get_rng_state()
    torch.manual_seed(1)
    assert equal(first, list(batches))
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("augmentation", [Augmentation(shift=2), EVERYTHING])
def test_images_come_out_contiguous_and_the_split_is_not_changed(augmentation: Augmentation) -> None:
    split = split_of(20, channels=3)
    before = split.images.clone()
    for images, _ in batches_of(split, augmentation=augmentation, shuffle=True):
        assert images.is_contiguous()
        images.zero_()
    assert torch.equal(split.images, before)


def test_targets_are_distributions_when_images_are_mixed() -> None:
    (_, targets), *_ = batches_of(split_of(16), augmentation=Augmentation(mixup=0.2))
    assert targets.shape == (16, 4)
    assert targets.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_impossible_batches_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches_of(split_of(4), **options)


def test_negative_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="epoch must be at least 0, got -1"):
        batches_of(split_of(4)).set_epoch(-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_images() -> None:
    split = split_of(50, channels=3, side=16)
    on_cpu = batches_of(split, augmentation=EVERYTHING, shuffle=True)
    on_gpu = batches_of(split, augmentation=EVERYTHING, shuffle=True, device="cuda")
    for (images, targets), (gpu_images, gpu_targets) in zip(on_cpu, on_gpu, strict=True):
        assert gpu_images.is_cuda
        torch.testing.assert_close(gpu_images.cpu(), images)
        torch.testing.assert_close(gpu_targets.cpu(), targets)
