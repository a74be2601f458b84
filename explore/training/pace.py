"""What a step of training takes for each of several seeds: alone, and as its share of a step of all together."""

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from explore.training.captured import UNCAPTURED, Captured
from explore.training.handing import Batch, Loader, Turn
from explore.training.optimizer import make_optimizer
from explore.training.options import Training
from explore.training.together import Abreast, check_stackable, clip_each, losses, quiet_vmap, stacked
from explore.training.update import launch_updates

ROUNDS = 5
_ENOUGH = 2  # rounds, where neither has shown a gain
_STEPS = 2  # of each in a round
# By how much gradients of the same step may differ, as a share of the largest number in them. In float32 a GPU may
# round the inputs of a convolution to ten bits (TF32).
_ROUNDING = {"32-true": 0.01, "bf16-mixed": 0.1}

Rounds = list[tuple[float, float]]


def step_seconds(
    networks: Sequence[nn.Module],
    train: Sequence[Loader],
    recipe: Training,
    device: torch.device,
    turn: Turn,
    *,
    rounds: int = ROUNDS,
    whole: bool = False,
) -> Rounds:
    """Seconds of a step of the first network alone, and of one of all together for each of them, taken in turn.

    A pair for each round; ends after two without a gain, unless the `whole` is wanted. The first network is trained a
    little by it, on the device. One thread of a processor is timed by what the core computed for it.

    Raises ValueError where networks cannot be trained together, or where their gradient is not that of each alone.
    """
    check_stackable(networks[0])
    found: Rounds = []
    with quiet_vmap():
        together = _Steps(stacked(networks).to(device), Abreast(train), recipe, device, turn, stack=True)
        alone = _Steps(networks[0].to(device), train[0], recipe, device, turn, stack=False)
        _check_alike(alone, together, _ROUNDING[recipe.precision])
        for steps in (alone, together):
            steps.warm_up()
        while len(found) < rounds and (whole or len(found) < _ENOUGH or any(one > share for one, share in found)):
            found.append((alone.seconds(), together.seconds() / len(networks)))
    return found


def _check_alike(alone: "_Steps", together: "_Steps", tolerance: float) -> None:
    """Take the first steps, which are not timed, and compare their gradients."""
    try:
        alone.take()
        together.take()
    except RuntimeError as error:
        if "random operation" in str(error):  # in the words of torch.vmap
            raise ValueError("networks are trained together where they draw no random numbers in training") from None
        raise
    largest = _largest(alone.gradients())
    pairs = zip(alone.gradients(), together.gradients(), strict=True)
    far = _largest([one - all_of[0] for one, all_of in pairs])
    if not far <= tolerance * largest:  # nor where one of them is not a number
        raise ValueError(f"gradients must be those of each network alone, got a difference of {far / largest:.0%}")


def _largest(tensors: Sequence[Tensor]) -> float:
    """The largest absolute number; not a number where one of them is none, unlike Python's `max`."""
    return float(torch.stack([one.abs().max() for one in tensors]).max())


class _Steps:
    """Steps of one network, or of several that were stacked, as `Classifier` and `Classifiers` take them."""

    def __init__(
        self, network: nn.Module, loader: Loader, recipe: Training, device: torch.device, turn: Turn, *, stack: bool
    ) -> None:
        self._network = network.train()
        self._batches = _endless(loader)
        self._recipe = recipe
        self._device = device
        self._turn = turn
        self._stack = stack
        one_thread = device.type == "cpu" and torch.get_num_threads() == 1
        self._clock = time.thread_time if one_thread else time.perf_counter
        self._parameters = list(network.parameters())
        self._optimizer = make_optimizer(network, recipe, stacked=stack)
        self._gradient = Captured(self._work, network)
        launch_updates(self._optimizer, lambda: self._gradient.captured)

    def gradients(self) -> list[Tensor]:
        """Of all parameters that had one in the last step."""
        return [one.grad for one in self._parameters if one.grad is not None]

    def seconds(self) -> float:
        """Seconds of a step, as the mean of a few."""
        self._settle()
        began = self._clock()
        for _ in range(_STEPS):
            self.take()
        self._settle()
        return (self._clock() - began) / _STEPS

    def take(self) -> None:
        """One step."""
        with self._turn():
            self._gradient(next(self._batches))
            self._optimizer.step()

    def warm_up(self) -> None:
        """Take the steps on a GPU that are not as those after them."""
        if self._device.type == "cuda":
            for _ in range(UNCAPTURED + 1):
                self.take()

    def _work(self, batch: Batch) -> Tensor:
        with torch.autocast(
            self._device.type, torch.bfloat16, self._recipe.precision == "bf16-mixed", cache_enabled=False
        ):
            loss = self._loss(*batch)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        if self._recipe.clip_norm:
            clip = clip_each if self._stack else nn.utils.clip_grad_norm_
            clip(self._parameters, self._recipe.clip_norm)
        return loss.detach()

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        smoothing = self._recipe.label_smoothing
        if self._stack:
            return losses(self._network, (images, targets), smoothing)
        return cross_entropy(self._network(images), targets, label_smoothing=smoothing)

    def _settle(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _endless(loader: Loader) -> Iterator[Batch]:
    while True:
        yield from loader
