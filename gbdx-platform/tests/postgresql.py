"""A PostgreSQL cluster of the tests' own on the loopback, from Debian's server programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from gbdx_platform.local_s3 import free_ports


def programs() -> Path:
    """The folder of PostgreSQL's server programs; the test fails, and does not skip, without them."""
    folders = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "/none").parent,
    ]
    found = next((folder for folder in folders if (folder / "initdb").exists()), None)
    if found is None:
        pytest.fail(
            "PostgreSQL: expected its server programs (Debian: apt-get install postgresql), found none", pytrace=False
        )
    return found


class Cluster:
    """A cluster in a folder. PostgreSQL refuses to run as root, who lends it the user nobody."""

    def __init__(self, folder: str) -> None:
        self.folder, self.data, self.port = folder, f"{folder}/data", free_ports(1)[0]
        self.url = f"postgresql://gbdx@127.0.0.1:{self.port}/postgres"
        if os.getuid() == 0:
            shutil.chown(folder, "nobody")
        self.run("initdb", "-A", "trust", "-U", "gbdx", "--no-sync")

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's programs, to its end; from / as it may not be able to enter the caller's folder."""
        as_user = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
        line = [*as_user, programs() / program, "-D", self.data, *arguments]
        done = subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/", check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder} -c fsync=off"
        )
        self.run("pg_ctl", "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self) -> None:
        """Ends it without a farewell to its clients."""
        self.run("pg_ctl", "-w", "-m", "immediate", "stop")


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="gbdx-postgresql-") as folder:
        found = Cluster(folder)
        found.start()
        yield found
        found.stop()
