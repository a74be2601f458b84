"""Where the images of a split lie while they are used: on the device, or gathered from disk ahead of the device."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from explore.control_groups import memory
from explore.data.augmentation import Shifted

# Share of a device's memory that a split may take: of a GPU's, what is free now, for there are networks and perhaps
# other runs to come; of a processor's, all that the machine or the container has, for each worker has its own copy and
# the memory map is shared.
GPU_SHARE, CPU_SHARE = 0.5, 1 / 32
_MOST_THREADS = 4
_WORD = 8  # bytes


def threads_for(device: torch.device) -> int:
    """How many threads gather batches: one for a processor, which is busy with the work itself.

    Up to four of the threads of this process for a GPU, which trains thousands of images of 224 pixels in a second.
    """
    return min(_MOST_THREADS, torch.get_num_threads()) if device.type == "cuda" else 1


def ahead_of(device: torch.device) -> int:
    """How many batches are gathered ahead: one is ready, and each thread gathers another."""
    return threads_for(device) + 1


def fits(images: Tensor, margin: int, device: torch.device) -> bool:
    """Whether a split is kept on the device, where shifts up to `margin` need a second, padded copy to begin with."""
    size = images.nbytes
    if margin:
        height, width = images.shape[-2:]
        size += 2 * images.nbytes * (height + 2 * margin) * (width + margin) // (height * width)
    if device.type == "cuda":
        return size <= GPU_SHARE * torch.cuda.mem_get_info(device)[0]
    return size <= CPU_SHARE * memory()


class Resident:
    """Images (uint8, images × channels × height × width) on the device, picked with shifts up to `margin`."""

    def __init__(self, images: Tensor, margin: int, device: torch.device) -> None:
        self._device = device
        self._images = images.to(device)
        self._shifted: Shifted | None = None
        if margin:
            self._shifted = Shifted(self._images, margin)
            self._images = images.new_empty(0)  # all are in the padded copy

    def pick(self, parts: list[Tensor], offsets: list[Tensor | None]) -> Iterator[Tensor]:
        """The images of each part of rows, from its offsets on (see `Shifted`)."""
        # All rows at once: before each transfer a GPU ends what it was given.
        on_device = torch.split(torch.cat(parts).to(self._device), [len(rows) for rows in parts]) if parts else ()
        for rows, corner in zip(on_device, offsets, strict=True):
            if self._shifted is not None and corner is not None:
                yield self._shifted.pick(rows, corner)
            else:
                yield self._images.index_select(0, rows)


class Streamed:
    """Images in a memory map, which threads gather and send to the device while the device works on others.

    Picks what `Resident` picks, to the bit. For a GPU it gathers into pinned memory and copies on a stream of its own.
    """

    def __init__(self, images: Tensor, margin: int, device: torch.device) -> None:
        self._shape = images.shape[1:]
        flat = images.view(len(images), -1)
        # Of rows of bytes torch shares out each one by itself among the threads of the process.
        self._rows = flat.view(torch.int64) if flat.shape[1] % _WORD == 0 else flat
        self._margin = margin
        self._device = device
        on_gpu = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        # One pool for all passes, several of which may go on at once; it ends with the last of them.
        self._threads = ThreadPoolExecutor(
            threads_for(device), "gathering", initializer=partial(_take, self._copies) if self._copies else None
        )

    def pick(self, parts: list[Tensor], offsets: list[Tensor | None]) -> Iterator[Tensor]:
        """The images of each part of rows, from its offsets on (see `Shifted`)."""
        most = ahead_of(self._device)
        ahead = deque(self._threads.submit(self._gather, rows) for rows in parts[:most])
        try:
            for index, corner in enumerate(offsets):
                images = self._arrived(*ahead.popleft().result())
                if index + most < len(parts):
                    ahead.append(self._threads.submit(self._gather, parts[index + most]))
                yield images if corner is None else self._moved(images, corner)
        finally:  # whoever stops in the middle does not wait for the rest
            for one in ahead:
                one.cancel()

    def _gather(self, rows: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        gathered = torch.empty(
            (len(rows), self._rows.shape[1]), dtype=self._rows.dtype, pin_memory=self._copies is not None
        )
        torch.index_select(self._rows, 0, rows, out=gathered)
        images = gathered.view(torch.uint8).view(-1, *self._shape)
        if self._copies is None:
            return images, None
        with torch.cuda.stream(self._copies):
            # torch keeps the pinned memory until the copy is done.
            return images.to(self._device, non_blocking=True), self._copies.record_event()

    def _arrived(self, images: Tensor, copied: torch.cuda.Event | None) -> Tensor:
        """The images, behind whose copy the work that follows is queued."""
        if copied is not None:
            working = torch.cuda.current_stream(self._device)
            working.wait_event(copied)
            images.record_stream(working)
        return images

    def _moved(self, images: Tensor, corner: Tensor) -> Tensor:
        return Shifted(images, self._margin).pick(torch.arange(len(images), device=images.device), corner)


def _take(copies: torch.cuda.Stream) -> None:
    """Have this thread work with the GPU of a stream: it would come back to the first one, and take memory there."""
    torch.cuda.set_device(copies.device)
