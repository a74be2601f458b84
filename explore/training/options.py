"""The recipe: how a candidate is trained."""

import math
from dataclasses import dataclass

SCHEDULES = ("cosine", "linear", "constant")
ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass(kw_only=True)
class Training:
    """Schema of the config group `training`. Steps are optimizer steps, rates are per step."""

    epochs: int = 20
    batch_size: int = 128
    lr: float = 2e-3  # peak learning rate of AdamW
    schedule: str = "cosine"  # cosine | linear | constant, after the warm-up
    warmup_epochs: float = 1.0  # over which the learning rate rises from 0; parts of an epoch count
    weight_decay: float = 0.05  # on matrices only; never on biases, norms and positions
    label_smoothing: float = 0.1
    clip_norm: float = 1.0  # largest norm of the gradient; 0 = no clipping
    ema: float = 0.0  # decay per step of the moving average of the weights that is evaluated; 0 = none
    precision: str = "auto"  # auto | 32-true | bf16-mixed; auto = bf16 where the hardware has it
    seed: int = 0  # of weights, order of the images, augmentation and stochastic depth
    rung: int | None = None  # epochs between checkpoints; null = one for each second; an interrupted run loses these
    accelerator: str = "auto"  # as Lightning's Trainer: auto | cpu | gpu
    devices: int = 1  # devices of one run
    strategy: str = "auto"  # as Lightning's Trainer: auto | ddp | fsdp
    num_nodes: int = 1
    threads: int | None = None  # of one run on the processor; null = its share of the cores, at most OMP_NUM_THREADS

    @property
    def alone(self) -> bool:
        """Whether one process trains, on one device."""
        return self.devices * self.num_nodes == 1 and self.strategy == "auto"

    def check(self) -> None:
        """Raise ValueError for a recipe that breaks a rule."""
        if self.rung is not None and self.rung < 1:
            raise ValueError(f"training.rung must be at least 1 or null, got {self.rung}")
        for name in ("epochs", "batch_size", "devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % (self.devices * self.num_nodes):
            raise ValueError(
                f"training.batch_size must be shared evenly by the devices, got {self.batch_size} for "
                f"{self.devices} devices × {self.num_nodes} nodes"
            )
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"training.threads must be at least 1 or null, got {self.threads}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"training.lr must be above 0 and finite, got {self.lr}; try 0.001")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"training.seed must be at least 0 and below 2**32, got {self.seed}")
        for name in ("label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"training.{name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("warmup_epochs", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"training.{name} must be at least 0 and finite, got {getattr(self, name)}")
        for name, allowed in (("schedule", SCHEDULES), ("accelerator", ACCELERATORS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"training.{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
