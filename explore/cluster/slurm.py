"""Workers as a job array of Slurm, by its own commands: they are its interface, and the same for many years."""

import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence

from explore.cluster.options import Job, Slurm

TIME_IS_UP = signal.SIGUSR1
_NOTICE_SECONDS = 120  # before the time limit; Slurm is up to a minute late
_SECONDS = {"m": 60, "h": 3600, "d": 86400}


def check(options: Slurm) -> None:
    """Refuse what no job could be submitted with; raises ValueError."""
    if not shutil.which("sbatch"):
        raise ValueError("cluster=slurm needs the command sbatch, got none here; run it on a login node of the cluster")
    if options.gpus < 0 or options.cpus < 1:
        raise ValueError(f"cluster.gpus and cpus must be at least 0 and 1, got {options.gpus} and {options.cpus}")
    _seconds(options.time)


def submit(options: Slurm, job: Job, count: int) -> list[str]:
    """Put an array of `count` jobs into the queue; raises ValueError with Slurm's own words."""
    job.logs.mkdir(parents=True, exist_ok=True)
    seconds = _seconds(options.time)
    given = {
        "job-name": job.name,
        "array": f"0-{count - 1}",
        "chdir": job.folder,
        "output": job.logs / "%A_%a.log",
        "open-mode": "append",
        "export": "ALL",
        "partition": options.partition,
        "gres": f"gpu:{options.gpus}" if options.gpus else None,
        "cpus-per-task": options.cpus,
        "mem": options.memory,
        "time": seconds // 60,
        # The shell is replaced by the worker, which so gets the signal that Slurm sends to a shell alone.
        "signal": f"B:{TIME_IS_UP.name.removeprefix('SIG')}@{min(_NOTICE_SECONDS, seconds // 4)}",
    }
    flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
    worker = shlex.join([*job.command, *([] if options.gpus else ["workers=1"])])
    script = "\n".join(["#!/bin/sh", *options.setup, f"exec {worker}", ""])
    command = ["sbatch", "--parsable", "--requeue", *flags, *options.options]
    done = subprocess.run(command, input=script, text=True, capture_output=True, env={**os.environ, **job.secrets})
    if done.returncode:
        raise ValueError(f"Slurm must take the jobs, got: {done.stderr.strip()}; command: {shlex.join(command)}")
    return [done.stdout.strip().partition(";")[0]]


def active(names: Sequence[str]) -> int | None:
    """How many jobs of these arrays wait or run; None when Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%T", f"--jobs={','.join(names)}"]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    return len(done.stdout.split())


def cancel(names: Sequence[str], *, waiting: bool) -> None:
    """End the jobs of these arrays; only those that have not begun, if `waiting`."""
    subprocess.run(["scancel", *(["--state=PENDING"] if waiting else []), *names], capture_output=True)


def begin_again() -> None:
    """Put the job that this process is back into the queue; Slurm ends the process for it."""
    subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)


def _seconds(time: str) -> int:
    found = re.fullmatch(r"(\d+)([mhd])", time)
    if not found or not int(found[1]):
        raise ValueError(f"cluster.time must be a time such as 30m, 4h or 2d, got {time}")
    return int(found[1]) * _SECONDS[found[2]]
