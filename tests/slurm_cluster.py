"""A Slurm cluster of one node on the loopback, for tests: munge, controller, compute daemon."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
SBIN = "/usr/sbin:/sbin"  # where Debian has the daemons, which is not on everybody's PATH
SECONDS_TO_START = 60

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
KillWait=10
NodeName=localhost NodeAddr=127.0.0.1 CPUs={n_cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A running cluster; its commands are found in `environment`.

    Args:
        folder: For its configuration, state and logs; nothing else of the machine is touched.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen] = []
        for name in ("state", "spool"):
            (folder / name).mkdir()
        configuration = folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                user=getpass.getuser(),
                folder=folder,
                controller_port=_free_port(),
                daemon_port=_free_port(),
                n_cpus=os.cpu_count(),
                memory=2000,
            )
        )
        self.environment = {
            "PATH": f"{os.environ['PATH']}:{SBIN}",
            "SLURM_CONF": str(configuration),
        }
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        folder.chmod(0o755)

    @staticmethod
    def missing() -> list[str]:
        """Return the programs that a cluster needs and that are not installed."""
        path = f"{os.environ['PATH']}:{SBIN}"
        return [name for name in PROGRAMS if shutil.which(name, path=path) is None]

    def start(self) -> None:
        """Start the daemons and wait until the node is idle.

        Raises:
            TimeoutError: It does not become idle; the message has the ends of the logs.
        """
        f = self.folder
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--socket={f}/munge.socket",
            f"--key-file={f}/munge.key",
            f"--pid-file={f}/munged.pid",
            f"--seed-file={f}/munge.seed",
        )
        deadline = time.monotonic() + SECONDS_TO_START
        while not (f / "munge.socket").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D", "-N", "localhost")
        while "idle" not in self.run("sinfo", "-h", "-o", "%T").stdout:
            if time.monotonic() > deadline:
                logs = {p.name: p.read_text()[-1000:] for p in f.glob("*.log")}
                raise TimeoutError(f"the node does not become idle: {logs}")
            time.sleep(0.5)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """Run one of Slurm's commands."""
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **self.environment}
        )

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        self.run("scancel", "--user", getpass.getuser())
        deadline = time.monotonic() + 20
        while self.run("squeue", "-h").stdout and time.monotonic() < deadline:
            time.sleep(0.5)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.log").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                )
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
