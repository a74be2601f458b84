"""Real services on this machine, each with one line: PostgreSQL, Slurm with several virtual nodes, Ray.

`make services` installs what they need, as root on Debian or Ubuntu. Whoever starts one with
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from cluster_machines import (
    DIE_WITH_US,
    PATIENCE,
    ROOT,
    answers,
    end_processes_below,
    end_processes_of,
    free_port,
    on_machine,
    own_folder,
    signal_all,
    start_network,
    trial_processes,
    wait_until,
    with_descendants,
)

from explore.command import _run
from explore.evaluation import COMPLETE, RUNNING
from explore.schema import Config
from explore.search.storage import open_study
from explore.search.study import Study
from explore.search.trial import Trial
from explore.sweep import main as sweep

Open = Callable[[str], Study]
Process = subprocess.Popen[bytes]

PASSWORD = "open-sesame"
SMALL = ["+sweep=smoke", "references=[]", "sampler=tpe", "stopping.rule=off", "tracking.mode=disabled"]
EPOCHS = 200  # some five to ten seconds, if nothing else is computed
BY_HAND = [*SMALL, "cluster=manual", "storage=postgres"]
# A study that is forgotten leaves a connection open, or a command its pipes.
LEFT_OPEN = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
STARTED = b"Ray runtime started"
RAY_PORT = 6399  # not between 10002 and 19999, where workers of Ray listen


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


def begin(name: str, folder: Path, url: str, *more: str) -> list[str]:
    """Begin a study for whoever joins it; where it is, for other commands."""
    places = [f"study={name}", f"storage.url={url}"]
    assert run_here(sweep, *BY_HAND, *places, f"outputs={folder}", "cluster.follow=false", *more) == 0
    return places


def run_here(main: Callable[[Config, list[str]], int], *arguments: str) -> int:
    """Run a command in this process, which has imported everything already, with the password; its exit status."""
    with mock.patch.dict(os.environ, PGPASSWORD=PASSWORD):
        return _run(main, list(arguments))


def epochs_of(study: Study) -> int:
    return sum(trial.evaluation.epochs for trial in study.trials())


def in_the_middle(study: Study) -> list[Trial]:
    """Trials that are being trained, and have some epochs behind them."""
    return [trial for trial in study.trials() if trial.status == RUNNING and trial.evaluation.epochs > 2]


def hanging(study: Study, machines: Mapping[str, Process]) -> list[Trial]:
    """Those in the middle, which hang there from now on, if each has its machine to itself."""
    found = in_the_middle(study)
    signal_all(trial_processes([machines[trial.owner["host"]] for trial in found]), signal.SIGSTOP)
    return found


def assert_whole(study: Study, count: int, epochs: int) -> None:
    """Exactly so many trials were trained, each once, to the end and without a gap, and nothing is left running."""
    trials = study.trials()
    assert [trial.status for trial in trials] == [COMPLETE] * count
    assert len({trial.proposal.key for trial in trials}) == count
    for trial in trials:
        assert [epoch.epoch for epoch in trial.evaluation.curve] == list(range(1, epochs + 1))
    assert not [one for one in study.stretches() if one.status == RUNNING]


@dataclass(frozen=True)
class Postgres:
    """A server that asks for a password; `url` is without it, `secret` with it."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return self.url_at("127.0.0.1")

    def url_at(self, address: str) -> str:
        return f"postgresql://explorer@{address}:{self.port}/explore"

    @property
    def socket_url(self) -> str:
        """For those who are in another network."""
        return f"postgresql://explorer@/explore?host={self.folder}&port={self.port}"

    @property
    def secret(self) -> str:
        return self.url.replace("@", f":{PASSWORD}@")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses='*'"
        self._control("start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self, how: str = "fast") -> None:
        """End it: `smart` waits for clients, `fast` ends their connections, `immediate` is a crash."""
        self._control("stop", "-m", how)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does not answer meanwhile, and no connection ends."""
        pids = with_descendants([int((self.folder / "data" / "postmaster.pid").read_text().split()[0])])
        signal_all(pids, signal.SIGSTOP)
        yield
        signal_all(pids, signal.SIGCONT)

    def order(self, sql: str) -> str:
        """What the server says to its administrator."""
        admin = ["env", f"PGPASSWORD={PASSWORD}", "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        return as_postgres(self.folder, [*admin, "-d", "postgres", "-c", sql])

    def _control(self, *arguments: str) -> None:
        as_postgres(self.folder, ["pg_ctl", "-D", str(self.folder / "data"), *arguments])


def as_postgres(folder: Path, command: Sequence[str]) -> str:
    """Run a program of PostgreSQL, which refuses to run as root."""
    newest = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/local/bin"))
    path = f"{newest}:{os.environ['PATH']}"
    user = ["runuser", "-u", "postgres", "--", "env", f"PATH={path}"]
    with (folder / "out").open("w+") as out:  # a pipe would stay open as long as the server
        done = subprocess.run([*user, *command], text=True, stdout=out, stderr=out, cwd=folder)
    said = (folder / "out").read_text()
    assert done.returncode == 0, said
    return said


@contextmanager
def start_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of its own, with an empty database."""
    with own_folder("postgres") as folder:
        shutil.chown(folder, "postgres")
        (folder / "password").write_text(PASSWORD)
        as_postgres(folder, ["initdb", "-D", str(folder / "data"), "-A", "scram-sha-256", "--pwfile=password"])
        with (folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.213.0.0/16 scram-sha-256\n")
        server = Postgres(folder, free_port())
        server.start()
        try:
            server.order(f"create role explorer login password '{PASSWORD}'")
            server.order("create database explore owner explorer")
            yield server
        finally:
            if answers(server.port):
                server.stop("immediate")


NODE = "NodeName=n{i} NodeHostname=n{i} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 Gres=gpu:2"
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
TaskProlog={folder}/prolog
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
KillWait=5
SlurmdTimeout=60
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
    """A cluster whose nodes n0, n1, ... are machines; `environment` is what its commands need."""

    folder: Path
    environment: Mapping[str, str]
    machines: dict[str, Process] = field(default_factory=dict)

    def start(self, *daemon: str, machine: str = "") -> Process:
        with (self.folder / f"{daemon[0]}{machine}.out").open("ab") as out:
            line, everything = [*DIE_WITH_US, *on_machine(machine), *daemon], {**os.environ, **self.environment}
            return subprocess.Popen(line, stdout=out, stderr=out, env=everything, start_new_session=True)

    def start_node(self, name: str) -> None:
        self.machines[name] = self.start("slurmd", "-D", "-N", name, machine=name)

    def end_node(self, name: str) -> None:
        """As when its power fails."""
        end_processes_below([self.machines.pop(name)])

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
        slurm = Slurm(folder, environment)
        write_slurm_conf(folder, nodes)
        munge = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key"]
        munge += [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        started = [slurm.start(*munge)]
        try:
            wait_until((folder / "munge.socket").exists, 20, "munge")
            started.append(slurm.start("slurmctld", "-D", "-i"))
            for index in range(nodes):
                slurm.start_node(f"n{index}")
            wait_until(lambda: slurm.idle() == nodes, 60, "Slurm")
            yield slurm
        finally:
            end_processes_below([*started, *slurm.machines.values()])
            end_processes_of(f"SLURM_CONF={folder}/slurm.conf")


def write_slurm_conf(folder: Path, nodes: int) -> None:
    host = socket.gethostname()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    lines = [NODE.format(i=i, port=free_port()) for i in range(nodes)]
    text = SLURM_CONF.format(host=host, port=free_port(), folder=folder, nodes="\n".join(lines))
    (folder / "slurm.conf").write_text(text)
    # A job is given the environment of who submits it, and would wait with the jobs of other nodes for the same turns.
    own = f"{folder}/$(hostname)"
    (folder / "prolog").write_text(f"#!/bin/sh\nmkdir -p {own}\necho export TMPDIR={own}\n")
    (folder / "prolog").chmod(0o755)
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
    nodes: list[Process]

    def add_node(self, cpus: int, gpus: int = 0, more: Sequence[str] = (), machine: str = "") -> Process:
        """Another node, on another machine if one is named; the first is the head."""
        head = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false", f"--temp-dir={self.folder}/ray"]
        where = [f"--address=127.0.0.1:{RAY_PORT}"] if self.nodes else head
        ray = str(Path(sys.executable).with_name("ray"))
        node = [ray, "start", "--block", "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        line = [*DIE_WITH_US, *self.prefix, *on_machine(machine), *node, *where, *more, "--disable-usage-stats"]
        environment = {**os.environ, **self.environment}
        for _ in range(PATIENCE):  # Ray gives itself 30 s
            log = self.folder / f"node{len(self.nodes)}.out"
            with log.open("wb") as out:
                process = subprocess.Popen(line, stdout=out, stderr=out, env=environment, start_new_session=True)
            self.nodes.append(process)
            wait_until(lambda log=log, process=process: STARTED in log.read_bytes() or process.poll(), 60, "a node")
            if process.poll() is None:
                break
        return process


@contextmanager
def start_ray(cpus: int, gpus: int = 0) -> Iterator[Ray]:
    """A Ray cluster of one node; in a network with nothing but 127.0.0.1, or Ray would take another address."""
    with own_folder("ray") as folder, start_network(cable=False) as network:
        (folder / "home").mkdir()
        environment = {
            "RAY_ADDRESS": f"127.0.0.1:{RAY_PORT}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
        }
        ray = Ray(folder, network.prefix, environment, [])
        try:
            ray.add_node(cpus, gpus)
            yield ray
        finally:
            end_processes_below(ray.nodes)
