"""The whole way once: start, register, upload, launch a chain, watch, download, print, delete, stop.

Everything happens in a temporary folder; nothing that it started is left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gbdx_platform.client import ClientError
from gbdx_platform.local_s3 import free_ports
from gbdx_platform.settings import read_credentials

START_SECONDS = 120


def chain(task: str, data: str) -> dict[str, Any]:
    """The workflow hello -> hello: the second one lists what the first one wrote."""
    return {
        "name": "hello-chain",
        "tasks": [
            {
                "name": "first",
                "taskType": task,
                "inputs": [
                    {"name": "data_in", "value": data},
                    {"name": "message", "value": "This is the first message."},
                ],
                "outputs": [{"name": "data_out", "persist": True, "persistLocation": "demo/first"}],
            },
            {
                "name": "second",
                "taskType": task,
                "inputs": [
                    {"name": "data_in", "source": "first:data_out"},
                    {"name": "message", "value": "This is my message!"},
                ],
                "outputs": [{"name": "data_out", "persist": True, "persistLocation": "demo/second"}],
            },
        ],
    }


def command(why: str, state: Path, *arguments: str, capture: bool = False) -> str:
    """Says what one command of the command line is for, shows and runs it.

    Raises:
        ClientError: it did not end well.
    """
    print(f"\n# {why}\n$ gbdx-platform {' '.join(arguments)}", flush=True)
    line = [sys.executable, "-m", "gbdx_platform.command_line", "--state", str(state), *arguments]
    done = subprocess.run(line, stdout=subprocess.PIPE if capture else None, text=True, check=False)
    if done.returncode:
        raise ClientError(f"demo: {arguments[0]} ended with exit code {done.returncode}")
    if capture:
        print(done.stdout.strip(), flush=True)
    return (done.stdout or "").strip()


def start(state: Path, stdout: int | None = None, **more: str) -> subprocess.Popen[bytes]:
    """A service on a free port, with its own S3. stdout: as for Popen; more: variables of its environment.

    Raises:
        ClientError: it ends, or doesn't begin to listen.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GBDX_", "DATABASE_"))
    }
    port = str(free_ports(1)[0])
    if stdout is None:
        print("# A service for this demo alone, with object storage (S3) of its own.")
        print(f"$ gbdx-platform serve --port {port}", flush=True)
    line = [sys.executable, "-m", "gbdx_platform.command_line", "--state", str(state), "serve", "--port", port]
    process = subprocess.Popen(line, env=environment | more, stdout=stdout, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while not read_credentials(state).get("url"):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(process)
            raise ClientError("demo: expected the service to start, found that it did not")
        time.sleep(0.05)
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the service as a person would, and what it started with it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(definition: str, inputs: str, local_image: str | None) -> int:
    """The demo; 0 when every step ended well."""
    image = ["--local-image", local_image] if local_image else []
    task = json.loads(Path(definition).read_text("utf-8"))["name"]
    with tempfile.TemporaryDirectory(prefix="gbdx-demo-") as folder:
        state = Path(folder, "state")
        state.mkdir(mode=0o700)
        process = start(state)
        try:
            why = "The task: its definition, bound to the image that it has now."
            command(why, state, "register", definition, *image)
            data = command("Its sample inputs, to S3.", state, "upload", inputs, "demo/data_in", capture=True)
            request = Path(folder, "workflow.json")
            request.write_text(json.dumps(chain(task, data), indent=4), encoding="utf-8")
            command(f"A workflow: {task} twice, the second fed by the first.", state, "launch", str(request), "--watch")
            command(
                "What the second one wrote, from S3.", state, "download", "demo/second", str(Path(folder, "results"))
            )
            print(f"\nout.txt:\n{Path(folder, 'results', 'out.txt').read_text('utf-8')}")
            command("The end.", state, "delete", task)
        finally:
            stop(process)
    print("\nStopped; nothing of the demo is left. gbdx-platform/README.md shows how to keep a service running.")
    return 0
