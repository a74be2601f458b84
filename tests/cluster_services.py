"""Real services on this machine, each with one line: PostgreSQL, Slurm with several virtual nodes, Ray.

`python tests/cluster_services.py install` installs what they need, as root on Debian or Ubuntu. Whoever starts one with
`with start_postgres() as server:` has it ended afterwards, and everything that it has started.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("postgresql", "slurm-wlm", "munge", "iproute2", "util-linux")
PASSWORD = "open-sesame"


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Fail when it takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} took more than {seconds} s"
        time.sleep(0.2)


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
            for order in (f"create role explorer login password '{PASSWORD}'", "create database explore owner explorer"):
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


NODE = "NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000"
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
            subprocess.run(["scancel", "--user=root", "--signal=KILL"], env=everything, check=False)
            end_processes_below(started)


def write_slurm_conf(folder: Path, nodes: int) -> None:
    host = socket.gethostname()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    lines = [NODE.format(i=i, host=host, port=free_port()) for i in range(nodes)]
    text = SLURM_CONF.format(host=host, port=free_port(), folder=folder, nodes="\n".join(lines))
    (folder / "slurm.conf").write_text(text)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)


def end_processes_below(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End these and all that they have started, which is found by its parents."""
    pids = [str(process.pid) for process in started]
    children = dict.fromkeys(pids)
    table = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid,ppid"], text=True).splitlines()[1:]]
    for _ in table:
        children |= dict.fromkeys(pid for pid, parent in table if parent in children)
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    for process in started:
        process.wait()


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
