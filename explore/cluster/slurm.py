"""Workers as a job array of Slurm, by its own commands: they are its interface, and the same for many years."""

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from explore.cluster.job import Cluster, Job

TIME_IS_UP = signal.SIGUSR1
_NOTICE_SECONDS = 120  # before the time limit; Slurm is up to a minute late
# In what sbatch says last where it finds no controller, or not even where one would be.
_NOBODY_ANSWERS = r"contact slurm controller|configuration (source|file)|timed out"
_SECONDS = {"m": 60, "h": 3600, "d": 86400}


@dataclass(kw_only=True)
class Slurm(Cluster):
    """`workers` jobs of an array, each a worker; resources are those of one job."""

    partition: str | None = None
    gpus: int = 0  # a job works on a trial on each, or on several where images are small and it has the cores
    cpus: int = 1
    memory: str | None = None  # as Slurm writes it, such as 16G
    time: str = "4h"  # of one job, which begins again until the study is full; as 30m, 4h or 2d
    options: list[str] = field(default_factory=list)  # further ones of sbatch, such as --constraint=a100
    setup: list[str] = field(default_factory=list)  # lines of shell before the worker, such as module load cuda
    follow: bool = True  # show the search until it ends; false = return when the jobs are in the queue

    def check(self) -> None:
        """Refuse what no job could be submitted with; raises ValueError."""
        if not shutil.which("sbatch"):
            raise ValueError(
                "cluster=slurm needs the command sbatch, got none here; run it on a login node of the cluster"
            )
        if self.gpus < 0 or self.cpus < 1:
            raise ValueError(f"cluster.gpus and cpus must be at least 0 and 1, got {self.gpus} and {self.cpus}")
        _seconds(self.time)

    def submit(self, job: Job, count: int) -> list[str]:
        """Put an array of `count` jobs into the queue; raises ValueError with Slurm's own words."""
        job.logs.mkdir(parents=True, exist_ok=True)
        seconds = _seconds(self.time)
        given = {
            "job-name": job.name,
            "array": f"0-{count - 1}",
            "chdir": job.folder,
            "output": job.logs / "%A_%a.log",
            "open-mode": "append",
            "export": "ALL",
            "partition": self.partition,
            "gres": f"gpu:{self.gpus}" if self.gpus else None,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "time": seconds // 60,
            # The shell is replaced by the worker, which so gets the signal that Slurm sends to a shell alone.
            "signal": f"B:{TIME_IS_UP.name.removeprefix('SIG')}@{min(_NOTICE_SECONDS, seconds // 3)}",
        }
        flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
        worker = shlex.join([*job.command, *([] if self.gpus else ["workers=1"])])
        script = "\n".join(["#!/bin/sh", *self.setup, f"exec {worker}", ""])
        command = ["sbatch", "--parsable", "--requeue", *flags, *self.options]
        done = subprocess.run(command, input=script, text=True, capture_output=True, env={**os.environ, **job.secrets})
        if done.returncode:
            raise ValueError(_refusal(done.stderr.strip(), command))
        return [done.stdout.strip().partition(";")[0]]

    def active(self, names: Sequence[str]) -> int | None:
        """How many jobs of these arrays wait or run; None when Slurm does not answer."""
        if not names:
            return 0
        command = ["squeue", "--noheader", "--array", "--format=%T", f"--jobs={','.join(names)}"]
        done = subprocess.run(command, text=True, capture_output=True)
        if done.returncode and "Invalid job id" not in done.stderr:
            return None
        return len(done.stdout.split())

    def cancel(self, names: Sequence[str], *, waiting: bool) -> None:
        """End the jobs of these arrays; only those that have not begun, if `waiting`."""
        if names:  # or a state alone would be taken for all jobs of this user that are in it
            subprocess.run(["scancel", *(["--state=PENDING"] if waiting else []), *names], capture_output=True)


def begin_again() -> None:
    """Put the job that this process is back into the queue; Slurm ends the process for it."""
    # The number of one job of an array is that of the array, and would put back all of them.
    of_array = [os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK")]
    job = "_".join(filter(None, of_array)) or os.environ["SLURM_JOB_ID"]
    subprocess.run(["scontrol", "requeue", job], check=True)


def _refusal(said: str, command: Sequence[str]) -> str:
    *_, last = ["", *said.splitlines()]
    if re.search(_NOBODY_ANSWERS, last):
        reason = re.sub(r"^sbatch: (error|fatal): (Batch job submission failed: )?", "", last)
        return (
            f"cluster=slurm needs a controller that answers, got: {reason}; see whether `sinfo` shows nodes here, and "
            "give the same command again"
        )
    return f"Slurm must take the jobs, got: {said}; command: {shlex.join(command)}"


def _seconds(time: str) -> int:
    found = re.fullmatch(r"(\d+)([mhd])", time)
    if not found or not int(found[1]):
        raise ValueError(f"cluster.time must be a time such as 30m, 4h or 2d, got {time}")
    return int(found[1]) * _SECONDS[found[2]]
