"""Machines, and commands on them, for tests of many: a machine is a set of namespaces of Linux, with a name and process
numbers of its own, and a network of its own where that is wanted.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 5
DIE_WITH_US = ["/usr/bin/setpriv", "--pdeathsig", "KILL"]
Command = subprocess.Popen[str]


def start_command(
    command: str,
    *arguments: str,
    environment: Mapping[str, str],
    machine: str = "",
    prefix: Sequence[str] = (),
) -> Command:
    """A command of the project in a session of its own, on another machine if one is named."""
    # Who runs the tests in the background ignores Ctrl-C, and so would all that they start.
    hearing = ["/usr/bin/env", "--default-signal=INT"]
    line = [
        *DIE_WITH_US,
        *prefix,
        *on_machine(machine),
        *hearing,
        sys.executable,
        "-m",
        f"explore.{command}",
        *arguments,
    ]
    everything = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=everything, start_new_session=True
    )


def said_by(process: Command, seconds: float = 300) -> str:
    """What a command has said, which must end well within so many seconds."""
    out, err = process.communicate(timeout=PATIENCE * seconds)
    assert process.returncode == 0, out + err
    return out + err


def wait_until(condition: Callable[[], object], seconds: float, what: str, commands: Sequence[Command] = ()) -> None:
    """Fail when it takes longer, on a machine that has nothing else to do, or when one of the commands has failed."""
    end = time.monotonic() + PATIENCE * seconds
    while not condition():
        for command in commands:
            if command.poll():
                raise AssertionError(f"{what} is in vain: {' '.join(command.communicate())}")
        assert time.monotonic() < end, f"{what} took more than {PATIENCE} × {seconds} s"
        time.sleep(0.2)


def on_machine(name: str) -> list[str]:
    """What a command has to begin with to run on a machine of this name; on this one, where that is empty.

    It has a name, process numbers and a folder for temporary files of its own, and the network and all other files of
    this machine. When `unshare` is killed, all that runs there is.
    """
    if not name:
        return []
    own = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    setting_up = f'hostname {name}; export TMPDIR=$(mktemp -d --tmpdir {name}-XXXX); exec "$@"'
    return [*own, "sh", "-c", setting_up, "sh"]


def signal_machine(process: Command, number: signal.Signals) -> None:
    """To a command and all that it has started, as when a whole machine is suspended."""
    signal_all(with_descendants([process.pid]), number)


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def with_descendants(pids: Sequence[int]) -> list[int]:
    found = dict.fromkeys(pids)
    table = subprocess.check_output(["ps", "-eo", "pid,ppid"], text=True).splitlines()[1:]
    for _ in table:  # deeper than that nothing can be
        before = len(found)
        for line in table:
            pid, parent = map(int, line.split())
            if parent in found:
                found[pid] = None
        if len(found) == before:
            break
    return list(found)


def trial_processes(started: Iterable["subprocess.Popen[bytes] | Command"]) -> list[int]:
    """Those below that train: forks of the warm server of a worker."""
    below = with_descendants([process.pid for process in started])
    table = subprocess.check_output(["ps", "-eo", "pid,ppid,args"], text=True).splitlines()[1:]
    forks = {
        int(pid): int(parent) for pid, parent, line in (row.split(None, 2) for row in table) if "forkserver" in line
    }
    return [pid for pid, parent in forks.items() if parent in forks and pid in below]


def end_processes_below(started: Sequence["subprocess.Popen[bytes] | Command"]) -> None:
    """End these and all that they have started."""
    signal_all(with_descendants([process.pid for process in started]), signal.SIGKILL)
    for process in started:
        process.wait()


def end_processes_of(setting: str) -> None:
    """End those with this in their environment: jobs, which have other parents than those who submitted them."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if setting.encode() in environment.read_bytes() and environment.parent.name != str(os.getpid()):
                os.kill(int(environment.parent.name), signal.SIGKILL)


@dataclass(frozen=True)
class Network:
    """A network of its own, which commands enter by `prefix`; from there this machine is called `gateway`."""

    name: str

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    @property
    def gateway(self) -> str:
        """The address of this machine, of a few that nobody else has."""
        return f"10.213.{os.getpid() % 256}.1"

    def cut(self) -> None:
        """Pull the cable to this machine."""
        run_ip("link", "set", self.name, "down")

    def mend(self) -> None:
        run_ip("link", "set", self.name, "up")


@contextmanager
def start_network(*, cable: bool) -> Iterator[Network]:
    """A network with nothing but 127.0.0.1, and a cable to this machine if wanted."""
    network = Network(f"explore{os.getpid()}")
    run_ip("netns", "add", network.name)
    try:
        run_ip("-netns", network.name, "link", "set", "lo", "up")
        if cable:
            run_ip("link", "add", network.name, "type", "veth", "peer", "name", "eth0", "netns", network.name)
            run_ip("address", "add", f"{network.gateway}/30", "dev", network.name)
            other = network.gateway.removesuffix("1") + "2"
            run_ip("-netns", network.name, "address", "add", f"{other}/30", "dev", "eth0")
            run_ip("-netns", network.name, "link", "set", "eth0", "up")
            network.mend()
        yield network
    finally:
        run_ip("netns", "delete", network.name)


def run_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def own_folder(name: str) -> Iterator[Path]:
    """A folder that other users may enter, with a name short enough for sockets; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"explore-{name}-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
