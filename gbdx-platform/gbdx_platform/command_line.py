"""The command `gbdx-platform`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gbdx_platform import __version__
from gbdx_platform.client import API, Client, ClientError
from gbdx_platform.settings import load
from gbdx_platform.storage import StorageError

COLORS = {"succeeded": "green", "failed": "red", "timedout": "red", "canceled": "yellow", "started": "cyan"}


def read_json(path: str) -> Any:
    """The JSON of a file, `-` for standard input."""
    text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ClientError(f"{path}: expected JSON, found {error}") from None


def show(value: Any) -> None:
    """A JSON answer for people and programs."""
    print(json.dumps(value, indent=4, ensure_ascii=False))


def serve(options: argparse.Namespace) -> int:
    """Starts the service."""
    from gbdx_platform import service

    settings = load(
        options.state, host=options.host, port=options.port, engine=options.engine,
        engine_arguments=tuple(options.engine_argument) or None,
    )  # fmt: skip
    try:
        service.serve(settings, options.certificate, options.key, options.plain_http)
    except service.ServiceError as error:
        raise ClientError(str(error)) from None
    return 0


def account(options: argparse.Namespace) -> int:
    """Makes an account and prints its password once."""
    from gbdx_platform import service

    try:
        password = service.add_account(load(options.state), options.name)
    except ValueError as error:
        raise ClientError(str(error)) from None
    print(f"account {options.name}, password {password} (shown once; the local S3 knows it from its next start on)")
    return 0


def register(options: argparse.Namespace) -> int:
    """Registers a definition."""
    client, definition = Client(options.state), read_json(options.definition)
    if options.local_image:
        name_image(client, definition, options.local_image)
    print(client.ask("POST", f"{API}/tasks", definition).text)
    return 0


def name_image(client: Client, definition: Any, local: str) -> None:
    """Gives a local image the name that a definition has for it; not when that version is registered already."""
    from gbdx_platform import containers

    try:
        task_type = f"{definition['name']}:{definition.get('version') or '0.0.1'}"
        wanted = definition["containerDescriptors"][0]["properties"]["image"]
    except (KeyError, IndexError, TypeError):
        return  # the service says what is missing
    if client.http.get(f"{API}/tasks/{task_type}").is_success:
        raise ClientError(f"task {task_type!r} is registered already: raise the definition's version")
    done = containers.call("tag", local, wanted)
    if done.returncode:
        raise ClientError(f"image {local!r}: expected it in the engine's store, found: {done.stderr.strip()}")


def list_tasks(options: argparse.Namespace) -> int:
    """Lists the tasks."""
    print("\n".join(Client(options.state).ask("GET", f"{API}/tasks").json()["tasks"]))
    return 0


def describe(options: argparse.Namespace) -> int:
    """Shows a definition."""
    show(Client(options.state).ask("GET", f"{API}/tasks/{options.task}").json())
    return 0


def delete(options: argparse.Namespace) -> int:
    """Deletes a task."""
    print(Client(options.state).ask("DELETE", f"{API}/tasks/{options.task}").text)
    return 0


def launch(options: argparse.Namespace) -> int:
    """Launches a workflow, or a batch of them; prints its id."""
    request = read_json(options.workflow)
    client = Client(options.state)
    if isinstance(request, dict) and request.get("batch_values"):
        print(client.ask("POST", f"{API}/batch_workflows", request).json()["batch_workflow_id"])
        return 0
    workflow = client.ask("POST", f"{API}/workflows", request).json()["id"]
    print(workflow)
    return watch(client, workflow) if options.watch else 0


def status(options: argparse.Namespace) -> int:
    """Shows a workflow's state; --watch until it is complete."""
    client = Client(options.state)
    if options.watch:
        return watch(client, options.workflow)
    from rich.console import Console

    found = client.ask("GET", f"{API}/workflows/{options.workflow}").json()
    Console().print(table(found))
    return 0


def table(workflow: dict[str, Any]) -> Any:
    """A workflow as a table of rich."""
    from rich.table import Table
    from rich.text import Text

    state = workflow["state"]
    found = Table("task", "type", "state", "note", title=f"{workflow['id']} {state['state']}/{state['event']}")
    for task in workflow["tasks"]:
        event = task["state"]["event"]
        shown = Text(f"{task['state']['state']}/{event}", COLORS.get(event, ""))
        found.add_row(Text(task["name"]), Text(task["taskType"]), shown, Text(task["note"]))
    return found


def watch(client: Client, workflow: str) -> int:
    """A live table until the workflow is complete; 0 when it succeeded."""
    from rich.live import Live

    with Live(refresh_per_second=4) as live:
        while True:
            found = client.ask("GET", f"{API}/workflows/{workflow}").json()
            live.update(table(found), refresh=True)
            if found["state"]["state"] == "complete":
                return 0 if found["state"]["event"] == "succeeded" else 1
            time.sleep(0.25)


def logs(options: argparse.Namespace) -> int:
    """Prints what a workflow's tasks printed, or one of them."""
    client = Client(options.state)
    found = client.ask("GET", f"{API}/workflows/{options.workflow}").json()
    for task in found["tasks"]:
        if options.task in (None, task["name"], task["id"]):
            for stream in ("stdout", "stderr"):
                text = client.ask("GET", f"{API}/workflows/{options.workflow}/tasks/{task['id']}/{stream}").text
                print(f"--- {task['name']} {stream}\n{text}")
    return 0


def cancel(options: argparse.Namespace) -> int:
    """Cancels a workflow."""
    state = Client(options.state).ask("POST", f"{API}/workflows/{options.workflow}/cancel").json()["state"]
    print(
        f"{state['state']}/{state['event']}, canceling"
        if state["state"] != "complete"
        else f"complete/{state['event']}"
    )
    return 0


def export(options: argparse.Namespace) -> int:
    """Prints a task, or a workflow by its id, in another format."""
    kind = "workflows" if options.name.isdigit() and len(options.name) == 19 else "tasks"
    show(Client(options.state).ask("GET", f"{API}/{kind}/{options.name}", format=options.format).json())
    return 0


def upload(options: argparse.Namespace) -> int:
    """Uploads a folder below the account's prefix; prints its URL."""
    print(Client(options.state).upload(Path(options.folder), options.below))
    return 0


def download(options: argparse.Namespace) -> int:
    """Downloads what lies below the account's prefix into a folder; a broken download goes on where it stopped."""
    target = Path(options.folder)
    print(f"{Client(options.state).download(options.below, target)} files in {target}")
    return 0


def client_env(options: argparse.Namespace) -> int:
    """Prints environment variables for other clients, and for the original ones; they hold secrets."""
    client = Client(options.state)
    given = client.s3_credentials()
    values = {
        "GBDX_URL": str(client.http.base_url).rstrip("/"), "GBDX_TOKEN": client.token,
        "GBDX_USERNAME": client.known.get("username"), "GBDX_PASSWORD": client.known.get("password"),
        "AWS_ENDPOINT_URL_S3": given.get("endpoint"), "AWS_ACCESS_KEY_ID": given["S3_access_key"],
        "AWS_SECRET_ACCESS_KEY": given["S3_secret_key"], "AWS_SESSION_TOKEN": given["S3_session_token"],
    }  # fmt: skip
    for name, value in values.items():
        if value:
            print(f"export {name}={shlex.quote(value)}")
    # There, a sitecustomize.py leads clients that have GBDX's own address written in their code to GBDX_URL.
    folder = Path(__file__).with_name("original_client")
    print(f"export PYTHONPATH={shlex.quote(str(folder))}${{PYTHONPATH:+:$PYTHONPATH}}")
    return 0


def demo(options: argparse.Namespace) -> int:
    """The whole way once, in a folder of its own."""
    from gbdx_platform.demo import run

    return run(options.definition, options.inputs, options.local_image)


# command -> (function, (arguments of add_argument)...)
TASK, WORKFLOW, WATCH = (
    ("task", {"help": "name or name:version"}),
    ("workflow", {"help": "its id"}),
    ("--watch", {"action": "store_true"}),
)
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], list[tuple[str, dict[str, Any]]]]] = {
    "serve": (serve, [
        ("--host", {}),
        ("--port", {"type": int}),
        ("--certificate", {"help": "TLS certificate (PEM)"}),
        ("--key", {"help": "its key"}),
        ("--plain-http", {"action": "store_true", "help": "no TLS though the host is no loopback"}),
        ("--engine", {"choices": ["cwltool", "toil"]}),
        ("--engine-argument", {"action": "append", "default": [], "help": "for toil: --engine-argument=--maxJobs=4"}),
    ]),
    "account": (account, [("name", {})]),
    "register": (register, [
        ("definition", {"help": "a definition's file"}),
        ("--local-image", {"help": "a local image that gets the definition's name for it first"}),
    ]),
    "list": (list_tasks, []),
    "describe": (describe, [TASK]),
    "delete": (delete, [TASK]),
    "launch": (launch, [("workflow", {"help": "a workflow's file"}), WATCH]),
    "status": (status, [WORKFLOW, WATCH]),
    "logs": (logs, [WORKFLOW, ("task", {"nargs": "?"})]),
    "cancel": (cancel, [WORKFLOW]),
    "export": (export, [
        ("name", {"help": "a task, or a workflow's id"}),
        ("--format", {"default": "cwl", "choices": ["gbdx", "cwl", "eoap"]}),
    ]),
    "upload": (upload, [("folder", {}), ("below", {"help": "where, below the prefix"})]),
    "download": (download, [("below", {"help": "from where, below the prefix"}), ("folder", {})]),
    "client-env": (client_env, []),
    "demo": (demo, [("definition", {}), ("inputs", {"help": "a folder of files"}), ("--local-image", {})]),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """One command; 0 when it did what was asked, 1 when a workflow failed, 2 when it was refused."""
    parser = argparse.ArgumentParser(prog="gbdx-platform", description="Register GBDX tasks, run workflows of them.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--state", help="folder of state (default: GBDX_STATE, or ~/.local/state/gbdx-platform)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (function, parameters) in COMMANDS.items():
        command = commands.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        command.set_defaults(function=function)
        for flag, settings in parameters:
            command.add_argument(flag, **settings)
    options = parser.parse_args(arguments)
    try:
        return int(options.function(options))
    except (ClientError, StorageError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
