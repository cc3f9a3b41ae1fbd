"""A service's process, sessions with it, and the definitions and workflows that tests are made of."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from gbdx_platform import containers
from gbdx_platform.accounts import all_accounts
from gbdx_platform.database import Store
from gbdx_platform.local_s3 import free_ports, stop_leftover
from gbdx_platform.settings import read_credentials
from gbdx_platform.storage import Storage

PLATFORM = Path(__file__).resolve().parents[1]
ROOT = PLATFORM.parent
API = "/workflows/v1"
# A tag of our own: a build of hello-gbdx beside the tests would move the other, and a moved tag is refused.
IMAGE = f"localhost/gbdx-platform-test:{os.getpid()}"


class Service:
    """A service's process and its folder of state."""

    def __init__(self, state: Path, *options: str, **environment: str) -> None:
        self.state, self.options = state, options
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "GBDX_", "DATABASE_"))}
        # The suite's own registry of images is this machine's: nothing is pulled.
        self.environment = {**kept, "PYTHONPATH": str(PLATFORM), "GBDX_PULL_TIMEOUT": "5", **environment}
        self.process: subprocess.Popen[bytes] | None = None
        # What it answered, but for the two paths that give secrets out.
        self.answers: set[str] = set()

    def command_line(self, *arguments: str) -> list[str]:
        """The words of one command."""
        return [sys.executable, "-m", "gbdx_platform.command_line", "--state", str(self.state), *arguments]

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command of the command line."""
        done = subprocess.run(
            self.command_line(*arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def begin(self) -> None:
        """Starts the process."""
        command = [*self.command_line("serve", "--port", str(free_ports(1)[0])), *self.options]
        with (self.state / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def start(self) -> None:
        """Starts and waits until it listens."""
        old = read_credentials(self.state)
        self.begin()
        assert self.process is not None
        deadline = time.monotonic() + 120
        while (known := read_credentials(self.state)).get("token") == old.get("token") or not known.get("url"):
            log = (self.state / "serve.log").read_text("utf-8", "replace")
            assert self.process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill_all(self) -> None:
        """SIGKILL for its object storage and containers, too: quicker than a stop, where nobody looks at the end."""
        if self.process:
            self.kill()
            stop_leftover(self.state)
            containers.remove_mounting(self.state / "runs")

    def client(self, token: str | None = None) -> httpx.Client:
        """A session as the default account, or with another token."""
        known = read_credentials(self.state)
        headers = {"Authorization": f"Bearer {token or known['token']}"}
        hooks = {"response": [self.remember]}
        return httpx.Client(base_url=known["url"], headers=headers, timeout=60, event_hooks=hooks)

    def store(self) -> Store:
        """Its database."""
        return Store(self.environment.get("DATABASE_URL") or f"sqlite:///{self.state / 'platform.sqlite'}")

    def remember(self, answer: httpx.Response) -> None:
        """Keeps an answer for check_secrets."""
        if not answer.url.path.startswith(("/auth/", "/s3creds/")):
            answer.read()
            self.answers.add(f"{answer.headers} {answer.text[: 2**16]}")

    def check_secrets(self) -> None:
        """No password, key or token is in the log of the service, of its S3, or in an answer."""
        known = read_credentials(self.state)
        identities = json.loads((self.state / "s3" / "identities.json").read_text())["identities"]
        secrets = {known["token"], known["password"], *(one["credentials"][0]["secretKey"] for one in identities)}
        secrets |= {account["password"] for account in all_accounts(self.store())}
        assert len(secrets) > 2 + len(identities)
        logs = [
            self.state / "serve.log",
            *(self.state / "s3").glob("log*.txt"),
            *(self.state / "s3" / "logs").iterdir(),
        ]
        for text in (*(log.read_text("utf-8", "replace") for log in logs), *self.answers):
            assert not [secret for secret in secrets if secret in text], text[:1000]

    def object_stores(self) -> list[str]:
        """The numbers of the processes that work in the folder of its object storage."""
        folder = str(self.state / "s3")
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                found += [process.name] * (os.readlink(process / "cwd") == folder)
        return found

    def containers(self) -> str:
        """The ids of the containers that bear its mark."""
        mark = (self.state / "service-id").read_text()
        return containers.call("ps", "--all", "--quiet", "--filter", f"label={containers.LABEL}={mark}").stdout

    def mounting(self, workflow: str) -> list[str]:
        """The ids of the containers that have something of a workflow's mounted, whoever started them."""
        listed = containers.call("ps", "--all", "--quiet").stdout.split()
        facts = json.loads(containers.call("inspect", *listed).stdout or "[]") if listed else []
        folder = f"{self.state / 'runs' / workflow}/"
        return [one["Id"] for one in facts if any(mount["Source"].startswith(folder) for mount in one["Mounts"])]


@contextmanager
def serving(state: Path, *options: str, **environment: str) -> Iterator[Service]:
    """A running service, which ends in good order."""
    service = Service(state, *options, **environment)
    service.start()
    yield service
    assert service.stop() == 0


class Session:
    """What tests do again and again, as one account."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        given = http.get("/s3creds/v1/prefix").json()
        self.bucket, self.prefix = given["bucket"], given["prefix"]
        keys = {"aws_access_key_id": given["S3_access_key"], "aws_secret_access_key": given["S3_secret_key"]}
        self.storage = Storage(self.bucket, endpoint_url=given["endpoint"], region_name="us-east-1", **keys)

    def register(self, definition: dict[str, Any]) -> str:
        """Registers a definition, returns its name."""
        answer = self.http.post(f"{API}/tasks", json=definition)
        assert answer.status_code == 200, answer.text
        return str(definition["name"])

    def put(self, name: str, content: bytes = b"x") -> str:
        """One object below the account's prefix; returns the URL of its folder."""
        self.storage.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=content)
        return f"s3://{self.bucket}/{self.prefix}/{name.rsplit('/', 1)[0]}"

    def text(self, name: str) -> str:
        """The content of an object below the account's prefix."""
        found = self.storage.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")
        return str(found["Body"].read().decode())

    def names(self, below: str) -> list[str]:
        """The names of the objects below a folder of the account's."""
        found = self.storage.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.prefix}/{below}/")
        return [entry["Key"].split(f"/{below}/", 1)[1] for entry in found.get("Contents", [])]

    def launch(self, *tasks: dict[str, Any], **more: Any) -> str:
        """Launches a workflow, returns its id."""
        answer = self.http.post(f"{API}/workflows", json={"name": "test", "tasks": list(tasks), **more})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def wait(self, workflow: str, patience: float = 120) -> dict[str, Any]:
        """The workflow once it is complete."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.http.get(f"{API}/workflows/{workflow}").json()
            if found["state"]["state"] == "complete":
                return found
            time.sleep(0.1)
        pytest.fail(f"not complete after {patience:g} s: {json.dumps(found, indent=1)}")

    def events(self, workflow: str, task: str) -> list[str]:
        """The event words of one task's life, in order."""
        events = self.http.get(f"{API}/workflows/{workflow}/events").json()["Events"]
        return [one["event"] for one in events if one["task"] == task]

    def run(self, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Launches a workflow and waits for its end."""
        return self.wait(self.launch(*tasks, **more))


def port(name: str, kind: str = "directory", required: bool = True, multiplex: bool = False) -> dict[str, Any]:
    """A port of a definition."""
    return {"name": name, "type": kind, "required": required, "description": name, "multiplex": multiplex}


def definition(name: str, inputs: list[Any], outputs: list[Any], command: str, **more: Any) -> dict[str, Any]:
    """A definition of generation 2 that runs a command in hello-gbdx's image."""
    return {
        "name": name,
        "version": "0.1.0",
        "taskOwnerEmail": "owner@example.com",
        "description": "A task of the tests.",
        "properties": {"isPublic": False, "timeout": 60},
        "inputPortDescriptors": inputs,
        "outputPortDescriptors": outputs,
        "containerDescriptors": [{"type": "DOCKER", "command": command, "properties": {"image": IMAGE}}],
        **more,
    }


PREAMBLE = "import json, os, time; work = '/mnt/work/'; status = 'success'; reason = ''; strings = {}\n"
EPILOGUE = (
    "\njson.dump(strings, open(work + 'output/ports.json', 'w'))"
    "\njson.dump({'status': status, 'reason': reason}, open(work + 'status.json', 'w'))"
)


def script(text: str) -> str:
    """A command that runs some lines of Python as a task: `strings`, `status` and `reason` are written at the end."""
    return shlex.join(["python", "-c", PREAMBLE + text + EPILOGUE])


def task(
    name: str, kind: str, inputs: dict[str, Any] | None = None, persist: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """A task of a workflow. inputs: port -> value, or `("task:port",)` for a source; persist: port -> location."""
    given = [
        {"name": key, "source": value[0]} if isinstance(value, tuple) else {"name": key, "value": value}
        for key, value in (inputs or {}).items()
    ]
    outputs = [{"name": key, "persist": True, "persistLocation": place} for key, place in (persist or {}).items()]
    return {"name": name, "taskType": kind, "inputs": given, "outputs": outputs, **more}


def states(workflow: dict[str, Any]) -> dict[str, str]:
    """Task name -> `state/event`."""
    return {task["name"]: "/".join(task["state"].values()) for task in workflow["tasks"]}
