"""A Slurm cluster on this machine, without systemd: three nodes with a core each, and one with a make-believe GPU.

Needs root and Debian's slurm-wlm and munge, which test.sh installs. To try it by hand, until Ctrl-C:

    gbdx-platform/.venv/bin/python gbdx-platform/tests/slurm_cluster.py FOLDER
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gbdx_platform.local_s3 import free_ports

# proctrack/linuxproc and task/none need neither systemd nor control groups. Each node is a slurmd with a port and a
# host name of its own on the same address. jobs.txt is Slurm's own record of the jobs that have ended.
CONFIGURATION = """\
ClusterName=gbdx
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
SlurmdParameters=config_overrides
ReturnToService=2
GresTypes=gpu
NodeName=node1 NodeHostname=node1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000
NodeName=node2 NodeHostname=node2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000
NodeName=node3 NodeHostname=node3 NodeAddr=127.0.0.1 Port={ports[3]} CPUs=1 RealMemory=4000
NodeName=card1 NodeHostname=card1 NodeAddr=127.0.0.1 Port={ports[4]} CPUs=1 RealMemory=4000 Gres=gpu:1
PartitionName=main Nodes=node1,node2,node3 Default=YES
"""
GPU_PARTITION = "PartitionName=cards Nodes=card1\n"


class Cluster:
    """A running cluster. environment: what its clients need; `gpus`: whether a partition offers a GPU."""

    def __init__(self, folder: Path, gpus: bool = True) -> None:
        self.folder, self.gpus = folder, gpus
        self.nodes = ["node1", "node2", "node3", *(["card1"] if gpus else [])]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def configure(self) -> None:
        """Writes slurm.conf and the key that the daemons share."""
        (self.folder / "state").mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        text = CONFIGURATION.format(host=socket.gethostname(), folder=self.folder, ports=free_ports(5))
        (self.folder / "slurm.conf").write_text(text + (GPU_PARTITION if self.gpus else ""))
        (self.folder / "gres.conf").write_text("NodeName=card1 Name=gpu File=/dev/null\n")

    def daemons(self) -> list[list[str]]:
        """The command lines of the daemons, in the order of their start."""
        munge = ["munged", "--foreground", "--force"]
        for option, name in {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log"}.items():
            munge.append(f"--{option}={self.folder / 'munge'}.{name}")
        munge.append(f"--seed-file={self.folder / 'munge.seed'}")
        return [munge, ["slurmctld", "-D"], *(["slurmd", "-D", "-N", name] for name in self.nodes)]

    def ask(self, *command: str) -> str:
        """What a program of Slurm's says."""
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **self.environment}
        )
        return done.stdout

    def ready(self) -> bool:
        """Whether all nodes wait for work."""
        states = self.ask("sinfo", "--noheader", "--Node", "--format=%t").split()
        return states == ["idle"] * len(self.nodes)

    def jobs(self) -> list[dict[str, Any]]:
        """Slurm's record of the jobs that have ended: Name, NodeList, StartTime, EndTime, JobState, Tres, ..."""
        path = self.folder / "jobs.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]


@contextlib.contextmanager
def cluster(folder: Path, gpus: bool = True) -> Iterator[Cluster]:
    """Starts a cluster in an empty folder, and stops it at the end."""
    found = Cluster(folder, gpus)
    found.configure()
    environment = {**os.environ, **found.environment}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "daemons.log").open("wb"))
        for line in found.daemons():
            daemon = subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            while line[0] == "munged" and not (folder / "munge.socket").exists():
                assert daemon.poll() is None, (folder / "daemons.log").read_text()
                time.sleep(0.05)
        deadline = time.monotonic() + 60
        while not found.ready():
            assert time.monotonic() < deadline, (folder / "daemons.log").read_text("utf-8", "replace")
            time.sleep(0.2)
        yield found


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    place.mkdir(parents=True, exist_ok=True)
    with cluster(place) as running, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={running.environment['SLURM_CONF']}", flush=True)
        while True:
            time.sleep(1)
