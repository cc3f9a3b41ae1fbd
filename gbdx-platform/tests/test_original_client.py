"""GBDX's Python clients against the live service, in a shell that knows no more than `gbdx-platform client-env` prints.

gbdx-auth and gbdx-cloud-harness are the published packages. gbdxtools is not: the package index has had only an empty
placeholder of that name ("a placeholder for a deleted package") since 2024. The walkthrough's blocks therefore import
the platform's own gbdxtools.py; GBDXTOOLS=folder names a checkout of the original, to run the same blocks with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from live_service import IMAGE, PLATFORM, ROOT, Service

HERE = Path(__file__).resolve().parent
COMMAND = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))["containerDescriptors"][0]


@pytest.fixture(scope="session")
def published_clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the published packages of GBDX's clients."""
    folder = tmp_path_factory.mktemp("clients")
    lock = PLATFORM / "requirements-original-client.txt"
    install = ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", folder, "--requirement", lock]
    done = subprocess.run([sys.executable, "-m", *install], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def run_script(service: Service, script: str, name: str, folder: Path, packages: str) -> dict[str, Any]:
    """Runs a script for a task of some name in the environment of client-env; returns what it has seen."""
    hello = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))
    hello["name"], hello["containerDescriptors"][0]["properties"]["image"] = name, IMAGE
    (folder / f"{name}_definition.json").write_text(json.dumps(hello))
    (folder / "environment.sh").write_text(service.command("client-env").stdout)
    line = ["bash", "-c", '. ./environment.sh && exec "$@"', "bash", sys.executable, HERE / script, name]
    environment = {**service.environment, "PYTHONPATH": packages, "HOME": str(folder), "GBDX_STATE": str(folder)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_walkthroughs_blocks_run_as_they_stand(
    service: Service, published_clients: Path, fresh: str, tmp_path: Path
) -> None:
    original = os.environ.get("GBDXTOOLS")
    packages = f"{original}:{published_clients}" if original else str(PLATFORM)
    assert run_script(service, "walkthrough.py", fresh, tmp_path, packages) == {
        "registered": f"{fresh} successfully registered.",
        "listed": True,
        "described": COMMAND["command"],
        "begun": "pending",
        "status": {"state": "complete", "event": "succeeded"},
        "events": ["submitted", "scheduled", "started", "succeeded"],
        "printed": ["<empty>", "<empty>"],
        "out.txt": "some.json\nThis is my message!",
        "chain": "out.txt\nsecond",
        "batch": 2,
        "canceled": "canceled",
        "deleted": f"{fresh} successfully deleted.",
    }


def test_the_published_clients_register_run_fetch_and_delete(
    service: Service, published_clients: Path, fresh: str, tmp_path: Path
) -> None:
    assert run_script(service, "original_clients.py", fresh, tmp_path, str(published_clients)) == {
        "heartbeat": "ok",
        "registered": [200, f"Task {fresh} registered"],
        "twice": 409,
        "succeeded": True,
        "kept": ["out/out.txt"],
        "out.txt": "some.json\nThis is my message!",
        "searched": True,
        "deleted": [200, f"Task {fresh} deleted"],
        "deleted again": 400,
    }
