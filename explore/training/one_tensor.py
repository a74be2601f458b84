"""How Lightning writes and reads checkpoints: as `explore.training.checkpoint` does."""

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from explore.training.checkpoint import read, write


class OneTensor(TorchCheckpointIO):
    """Checkpoints with most tensors in one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        write(checkpoint, path)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """The checkpoint as it was given to `save_checkpoint`."""
        return read(path)
