"""Out of memory, as the allocators of processors and GPUs say it."""

import gc

import torch

# What comes as a plain RuntimeError: PyTorch's allocator for processors, C++, the libraries of CUDA, and oneDNN.
_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "ALLOC_FAILED",
    "could not create a primitive",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def give_back_memory() -> None:
    """Free what nobody refers to, of a GPU as well: a training that has ended is full of circles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
