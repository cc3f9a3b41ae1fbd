"""The whole way once: start, register, upload, launch a chain, watch, download, print, delete, stop.

Everything happens in a temporary folder; nothing that it started is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gbdx_platform.client import ClientError
from gbdx_platform.local_s3 import free_ports
from gbdx_platform.settings import read_credentials

START_SECONDS = 120
COMMAND = [sys.executable, "-m", "gbdx_platform.command_line"]


def task(name: str, kind: str, message: str, data: dict[str, str]) -> dict[str, Any]:
    """A task of the workflow, which keeps its output; data: where its files come from."""
    inputs = [{"name": "data_in", **data}, {"name": "message", "value": message}]
    output = {"name": "data_out", "persist": True, "persistLocation": f"demo/{name}"}
    return {"name": name, "taskType": kind, "inputs": inputs, "outputs": [output]}


def chain(kind: str, url: str) -> dict[str, Any]:
    """The workflow hello -> hello: the second one lists what the first one wrote."""
    first = task("first", kind, "This is the first message.", {"value": url})
    second = task("second", kind, "This is my message!", {"source": "first:data_out"})
    return {"name": "hello-chain", "tasks": [first, second]}


def command(why: str, state: Path, *arguments: str, capture: bool = False) -> str:
    """Says what one command of the command line is for, shows and runs it.

    Raises:
        ClientError: it did not end well.
    """
    print(f"\n# {why}\n$ gbdx-platform {' '.join(arguments)}", flush=True)
    line = [*COMMAND, "--state", str(state), *arguments]
    done = subprocess.run(line, stdout=subprocess.PIPE if capture else None, text=True, check=False)
    if done.returncode:
        raise ClientError(f"demo: {arguments[0]} ended with exit code {done.returncode}")
    if capture:
        print(done.stdout.strip(), flush=True)
    return (done.stdout or "").strip()


@contextmanager
def service(state: Path, stdout: int | None = None, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service on a free port, with its own S3, until the end of the block. stdout: as for Popen; more: variables.

    Raises:
        ClientError: it ends, or doesn't begin to listen.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GBDX_", "DATABASE_"))}
    line = [*COMMAND, "--state", str(state), "serve", "--port", str(free_ports(1)[0])]
    process = subprocess.Popen(line, env=kept | more, stdout=stdout, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not read_credentials(state).get("url"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ClientError("demo: expected the service to start, found that it did not")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(definition: str, inputs: str, local_image: str | None) -> None:
    """The demo.

    Raises:
        ClientError: a step did not end well.
    """
    image = ["--local-image", local_image] if local_image else []
    kind = json.loads(Path(definition).read_text("utf-8"))["name"]
    with tempfile.TemporaryDirectory(prefix="gbdx-demo-") as folder:
        state, request, results = Path(folder, "state"), Path(folder, "workflow.json"), Path(folder, "results")
        state.mkdir(mode=0o700)
        print(
            "# A service for this demo alone, with object storage (S3) of its own.\n$ gbdx-platform serve", flush=True
        )
        with service(state):
            why = "The task: its definition, bound to the image that it has now."
            command(why, state, "register", definition, *image)
            url = command("Its sample inputs, to S3.", state, "upload", inputs, "demo/data_in", capture=True)
            request.write_text(json.dumps(chain(kind, url), indent=4), encoding="utf-8")
            command(f"A workflow: {kind} twice, the second fed by the first.", state, "launch", str(request), "--watch")
            command("What the second one wrote, from S3.", state, "download", "demo/second", str(results))
            print(f"\nout.txt:\n{(results / 'out.txt').read_text('utf-8')}")
            command("The end.", state, "delete", kind)
    print("\nStopped; nothing of the demo is left. gbdx-platform/README.md shows how to keep a service running.")
