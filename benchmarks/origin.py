"""Where the figures of a benchmark come from: what stands beside them in a file, and in what is printed as JSON."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch

from explore.cost.device import device_name


def origin(command: str, device: str = "cpu") -> dict[str, Any]:
    """The command, the commit (`-dirty` where the tree has been changed since), the date, and what it ran on."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    return {
        "command": command,
        "commit": subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip(),
        "date": date.today().isoformat(),
        "device": device_name(torch.device(device)),
        "cores": os.cpu_count(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def print_json(figures: object, device: str = "cpu") -> None:
    """Print figures, and where they come from, as one object: what they are themselves, or `rows`."""
    spec = sys.modules["__main__"].__spec__
    command = shlex.join(["python", "-m", spec.name if spec else sys.argv[0], *sys.argv[1:]])
    named = figures if isinstance(figures, Mapping) else {"rows": figures}
    print(json.dumps({"origin": origin(command, device), **named}, indent=2))
