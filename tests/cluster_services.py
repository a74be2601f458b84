"""Real services on this machine, each with one line: PostgreSQL, Slurm with several virtual nodes, Ray.

`python tests/cluster_services.py install` installs what they need, as root on Debian or Ubuntu. Whoever starts one with
`with start_postgres() as server:` has it ended afterwards, and everything that it has started.
"""

import gc
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from explore.search.storage import open_study
from explore.search.study import Study

Open = Callable[[str], Study]

PACKAGES = ("postgresql", "slurm-wlm", "munge", "iproute2", "util-linux")
PASSWORD = "open-sesame"
PATIENCE = 5
# A study that is forgotten leaves a connection open, or a command its pipes.
LEFT_OPEN = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
RAY_PORT = 6399  # not between 10002 and 19999, where workers of Ray listen


ROOT = Path(__file__).parents[1]


def start_command(
    command: str,
    *arguments: str,
    environment: Mapping[str, str],
    machine: str = "",
    prefix: Sequence[str] = (),
) -> "subprocess.Popen[str]":
    """A command of the project in a session of its own, on another machine if one is named."""
    line = [*prefix, *on_machine(machine), sys.executable, "-m", f"explore.{command}", *arguments]
    everything = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=everything, start_new_session=True
    )


def said_by(process: "subprocess.Popen[str]", seconds: float = 300) -> str:
    """What a command has said, which must end well within so many seconds."""
    out, err = process.communicate(timeout=PATIENCE * seconds)
    assert process.returncode == 0, out + err
    return out + err


def signal_machine(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """To a command and all that it has started, as when a whole machine is suspended."""
    for pid in with_descendants([process.pid]):
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


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Fail when it takes longer, on a machine that has nothing else to do."""
    end = time.monotonic() + PATIENCE * seconds
    while not condition():
        assert time.monotonic() < end, f"{what} took more than {PATIENCE} × {seconds} s"
        time.sleep(0.2)


@contextmanager
def studies_of(url: str) -> Iterator[Open]:
    """Opens studies by their names; their connections are closed afterwards."""
    opened: list[Study] = []

    def open_one(name: str) -> Study:
        opened.append(open_study(url, name))
        return opened[-1]

    yield open_one
    for study in opened:
        vars(study._storage)["_storage"]._backend.engine.dispose()
    opened.clear()
    gc.collect()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Postgres:
    """A server that asks for a password; `url` is without it, `secret` with it."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql://explorer@127.0.0.1:{self.port}/explore"

    @property
    def socket_url(self) -> str:
        """For those who are in another network."""
        return f"postgresql://explorer@/explore?host={self.folder}&port={self.port}"

    @property
    def secret(self) -> str:
        return f"postgresql://explorer:{PASSWORD}@127.0.0.1:{self.port}/explore"

    def start(self) -> None:
        self._control("start", "-w", "-l", str(self.folder / "log"), "-o", f"-p {self.port} -k {self.folder}")

    def stop(self, how: str = "fast") -> None:
        """End it: `smart` waits for clients, `fast` ends their connections, `immediate` is a crash."""
        self._control("stop", "-m", how)

    def _control(self, *arguments: str) -> None:
        as_postgres(self.folder, ["pg_ctl", "-D", str(self.folder / "data"), *arguments])


def as_postgres(folder: Path, command: Sequence[str]) -> str:
    """Run a program of PostgreSQL, which refuses to run as root."""
    newest = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/local/bin"))
    path = f"{newest}:{os.environ['PATH']}"
    user = ["runuser", "-u", "postgres", "--", "env", f"PATH={path}"] if os.geteuid() == 0 else ["env", f"PATH={path}"]
    with (folder / "out").open("w+") as out:  # a pipe would stay open as long as the server
        done = subprocess.run([*user, *command], text=True, stdout=out, stderr=out, cwd=folder)
    said = (folder / "out").read_text()
    assert done.returncode == 0, said
    return said


@contextmanager
def own_folder(name: str) -> Iterator[Path]:
    """A folder that other users may enter, with a name short enough for sockets; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"explore-{name}-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def start_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of its own, with an empty database."""
    with own_folder("postgres") as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        (folder / "password").write_text(PASSWORD)
        as_postgres(folder, ["initdb", "-D", str(folder / "data"), "-A", "scram-sha-256", "--pwfile=password"])
        server = Postgres(folder, free_port())
        server.start()
        try:
            admin = ["env", f"PGPASSWORD={PASSWORD}", "psql", "-h", "127.0.0.1", "-p", str(server.port)]
            for order in (
                f"create role explorer login password '{PASSWORD}'",
                "create database explore owner explorer",
            ):
                as_postgres(folder, [*admin, "-U", "postgres", "-d", "postgres", "-c", order])
            yield server
        finally:
            if answers(server.port):
                server.stop("immediate")


def on_machine(name: str) -> list[str]:
    """What a command has to begin with to run on a machine of this name; on this one, where that is empty.

    It has a name and process numbers of its own, and the network and the files of this machine. When `unshare` is
    killed, all that runs there is.
    """
    if not name:
        return []
    own = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*own, "sh", "-c", f'hostname {name}; exec "$@"', "sh"]


NODE = "NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 Gres=gpu:2"
SLURM_CONF = """
ClusterName=explore
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={folder}/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldLogFile={folder}/slurmctld.log
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=0,preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 State=UP
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster of virtual nodes; `environment` is what its commands need."""

    folder: Path
    environment: Mapping[str, str]

    def idle(self) -> int:
        """How many nodes have nothing to do."""
        done = subprocess.run(
            ["sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D"],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
        )
        return int(done.stdout or 0)

    def run(self, *command: str) -> str:
        """What a command of Slurm says, which must end well."""
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **self.environment})
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def start_slurm(nodes: int = 2) -> Iterator[Slurm]:
    """A Slurm cluster on this machine, with partitions `low`, which can be preempted, and `high`."""
    with own_folder("slurm") as folder:
        environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        slurm, everything = Slurm(folder, environment), {**os.environ, **environment}
        write_slurm_conf(folder, nodes)
        munge = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
        munge += [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        started: list[subprocess.Popen[bytes]] = []
        try:
            for daemon in (munge, ["slurmctld", "-D", "-i"], *(["slurmd", "-D", "-N", f"n{i}"] for i in range(nodes))):
                with (folder / f"{daemon[0]}.out").open("ab") as out:
                    started.append(
                        subprocess.Popen(daemon, stdout=out, stderr=out, env=everything, start_new_session=True)
                    )
                if daemon is munge:
                    wait_until((folder / "munge.socket").exists, 20, "munge")
            wait_until(lambda: slurm.idle() == nodes, 60, "Slurm")
            yield slurm
        finally:
            end_processes_below(started)
            end_processes_of(f"SLURM_CONF={folder}/slurm.conf")


def write_slurm_conf(folder: Path, nodes: int) -> None:
    host = socket.gethostname()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    lines = [NODE.format(i=i, host=host, port=free_port()) for i in range(nodes)]
    text = SLURM_CONF.format(host=host, port=free_port(), folder=folder, nodes="\n".join(lines))
    (folder / "slurm.conf").write_text(text)
    for gpu in range(2):
        os.mknod(folder / f"gpu{gpu}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null
    (folder / "gres.conf").write_text(f"NodeName=n[0-{nodes - 1}] Name=gpu File={folder}/gpu[0-1]\n")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)


@dataclass
class Ray:
    """A Ray cluster in a network of its own, which commands enter by `prefix`; `nodes` are its processes."""

    folder: Path
    prefix: Sequence[str]
    environment: Mapping[str, str]
    nodes: list["subprocess.Popen[bytes]"]

    def add_node(self, cpus: int, gpus: int = 0, more: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Another node; the first is the head."""
        where = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false", f"--temp-dir={self.folder}/ray"]
        if self.nodes:
            where = [f"--address=127.0.0.1:{RAY_PORT}"]
        ray = str(Path(sys.executable).with_name("ray"))
        node = [ray, "start", "--block", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        with (self.folder / f"node{len(self.nodes)}.out").open("wb") as out:
            line = [*self.prefix, *node, *where, *more, "--disable-usage-stats"]
            process = subprocess.Popen(
                line, stdout=out, stderr=out, env={**os.environ, **self.environment}, start_new_session=True
            )
        self.nodes.append(process)
        return process


@contextmanager
def start_ray(cpus: int, gpus: int = 0) -> Iterator[Ray]:
    """A Ray cluster of one node; in a network with nothing but 127.0.0.1, or Ray would take another address."""
    with own_folder("ray") as folder:
        network = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && exec sleep infinity"])
        (folder / "home").mkdir()
        environment = {
            "RAY_ADDRESS": f"127.0.0.1:{RAY_PORT}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
        }
        ray = Ray(folder, ["nsenter", f"--target={network.pid}", "--net"], environment, [])
        try:
            wait_until(lambda: ray_network_is_up(ray), 20, "a network")
            ray.add_node(cpus, gpus)
            up = "Ray runtime started"
            wait_until(lambda: up in (folder / "node0.out").read_text(errors="replace"), 120, "Ray")
            yield ray
        finally:
            end_processes_below([*ray.nodes, network])  # type: ignore[list-item]


def ray_network_is_up(ray: Ray) -> bool:
    done = subprocess.run([*ray.prefix, "ip", "-brief", "address"], capture_output=True, text=True)
    return "127.0.0.1" in done.stdout


def end_processes_below(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End these and all that they have started."""
    for pid in with_descendants([process.pid for process in started]):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in started:
        process.wait()


def end_processes_of(setting: str) -> None:
    """End those with this in their environment: jobs, which have other parents than those who submitted them."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if setting.encode() in environment.read_bytes() and environment.parent.name != str(os.getpid()):
                os.kill(int(environment.parent.name), signal.SIGKILL)


def install() -> None:
    """Install the services that are not there yet."""
    if all(map(shutil.which, ("psql", "sbatch", "munged", "ip", "unshare"))):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # The services must not start by themselves: the tests start their own.
    subprocess.run(["apt-get", "update", "-q"], check=True, env=environment)
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
    subprocess.run(command, check=True, env={**environment, "RUNLEVEL": "1"})


if __name__ == "__main__":
    assert sys.argv[1:] == ["install"], "python tests/cluster_services.py install"
    install()
