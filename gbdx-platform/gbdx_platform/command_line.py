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

from botocore.exceptions import BotoCoreError
from botocore.exceptions import ClientError as S3Error

from gbdx_platform import __version__
from gbdx_platform.client import API, Client, ClientError
from gbdx_platform.settings import load
from gbdx_platform.storage import StorageError

ENDED = {"succeeded", "failed", "timedout", "canceled"}
COLORS = {"succeeded": "green", "failed": "red", "timedout": "red", "canceled": "yellow", "started": "cyan"}


def read_json(path: str) -> Any:
    """The JSON of a file, `-` for standard input."""
    try:
        return json.loads(sys.stdin.read() if path == "-" else Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise ClientError(f"{path}: expected a file, found none") from None
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
    """Registers a definition, or deploys it on another server (--ogc)."""
    definition = read_json(options.definition)
    if options.ogc:
        from gbdx_platform import ogc_processes

        print(ogc_processes.deploy(definition, options.ogc))
        return 0
    if isinstance(definition, dict) and "cwlVersion" in definition:
        definition = exported(definition)
    client = Client(options.state)
    if options.local_image:
        name_image(client, definition, options.local_image)
    print(client.ask("POST", f"{API}/tasks", definition).text)
    return 0


def exported(document: dict[str, Any]) -> Any:
    """The definition that `export --format cwl` wrote a tool of."""
    from gbdx_platform.cwl_tool import definition_of

    try:
        return definition_of(document)
    except ValueError as error:
        raise ClientError(str(error)) from None


def name_image(client: Client, definition: Any, local: str) -> None:
    """Gives a local image the name that a definition has for it; not when that version is registered already."""
    from gbdx_platform import containers

    try:
        task_type = f"{definition['name']}:{definition.get('version') or '0.0.1'}"
        wanted = definition["containerDescriptors"][0]["properties"]["image"]
    except (KeyError, IndexError, TypeError):
        return  # the service says what is missing
    if client.look(f"{API}/tasks/{task_type}"):
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
    request, client = read_json(options.workflow), Client(options.state)
    if isinstance(request, dict) and request.get("batch_values"):
        found = client.ask("POST", f"{API}/batch_workflows", request).json()["batch_workflow_id"]
    else:
        found = client.ask("POST", f"{API}/workflows", request).json()["id"]
    print(found, flush=True)
    return watch(client, found) if options.watch else 0


def status(options: argparse.Namespace) -> int:
    """Shows the state of a workflow or a batch; --watch until it is complete."""
    client = Client(options.state)
    if options.watch:
        return watch(client, options.workflow)
    from rich.console import Console

    Console().print(table(workflow_or_batch(client, options.workflow)))
    return 0


def workflow_or_batch(client: Client, identifier: str) -> Any:
    """The workflow object, or the batch object, that has an id."""
    for kind in ("workflows", "batch_workflows"):
        if found := client.look(f"{API}/{kind}/{identifier}"):
            return found
    raise ClientError(f"{identifier}: expected the id of a workflow or a batch of yours, found none that has it")


def table(found: dict[str, Any]) -> Any:
    """A workflow or a batch as a table of rich."""
    from rich.table import Table
    from rich.text import Text

    if "batch_workflow_id" in found:
        shown = Table("workflow", "state", title=f"batch {found['batch_workflow_id']} {found['workflow_name']}")
        for one in found["workflows"]:
            shown.add_row(one["workflow_id"], Text(one["state"], COLORS.get(one["state"], "")))
        return shown
    shown = Table("task", "type", "state", "note", title=f"{found['id']} {'/'.join(found['state'].values())}")
    for task in found["tasks"]:
        state = Text("/".join(task["state"].values()), COLORS.get(task["state"]["event"], ""))
        shown.add_row(Text(task["name"]), Text(task["taskType"]), state, Text(task["note"]))
    return shown


def watch(client: Client, identifier: str) -> int:
    """A live table until a workflow, or all of a batch, is complete; 0 when it succeeded."""
    from rich.live import Live

    with Live(refresh_per_second=4) as live:
        while True:
            found = workflow_or_batch(client, identifier)
            live.update(table(found), refresh=True)
            events = {one["state"] for one in found.get("workflows", [])} or {found["state"]["event"]}
            if events <= ENDED:
                return 0 if events == {"succeeded"} else 1
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
    """Cancels a workflow, or all of a batch."""
    client = Client(options.state)
    kind = "batch_workflows" if "workflows" in workflow_or_batch(client, options.workflow) else "workflows"
    client.ask("POST", f"{API}/{kind}/{options.workflow}/cancel")
    print(f"{options.workflow}: canceling what has not ended")
    return 0


def export(options: argparse.Namespace) -> int:
    """Prints a task, or a workflow by its id, in another format."""
    kind = "workflows" if options.name.isdigit() and len(options.name) == 19 else "tasks"
    show(Client(options.state).ask("GET", f"{API}/{kind}/{options.name}", format=options.format).json())
    return 0


def upload(options: argparse.Namespace) -> int:
    """Uploads a folder or a file below the account's prefix, prints its URL; a broken upload goes on."""
    print(Client(options.state).upload(Path(options.source), options.below))
    return 0


def download(options: argparse.Namespace) -> int:
    """Downloads what lies below the account's prefix into a folder; a broken download goes on."""
    target = Path(options.folder)
    count = Client(options.state).download(options.below, target)
    print(f"{count} file{'' if count == 1 else 's'} in {target}")
    return 0


def client_env(options: argparse.Namespace) -> int:
    """Prints environment variables for other clients, GBDX's own among them; they hold secrets."""
    client = Client(options.state)
    values = {"GBDX_URL": str(client.http.base_url).rstrip("/"), "GBDX_TOKEN": client.token}
    if client.token == client.known.get("token"):
        values |= {"GBDX_USERNAME": client.known["username"], "GBDX_PASSWORD": client.known["password"]}
    try:
        given = client.s3_credentials()
        values |= {
            "AWS_ENDPOINT_URL_S3": given.get("endpoint"), "AWS_ACCESS_KEY_ID": given["S3_access_key"],
            "AWS_SECRET_ACCESS_KEY": given["S3_secret_key"], "AWS_SESSION_TOKEN": given["S3_session_token"],
        }  # fmt: skip
    except ClientError as error:
        print(error, file=sys.stderr)
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


TASK = ("task", {"help": "name, or name:version"})
WORKFLOW = ("workflow", {"help": "its id"})
WATCH = ("--watch", {"action": "store_true", "help": "show a live table until it is complete"})
# command -> function, (arguments of add_argument)..., an example
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], list[tuple[str, dict[str, Any]]], str]] = {
    "serve": (serve, [
        ("--host", {"help": "address to listen on (default: 127.0.0.1)"}),
        ("--port", {"type": int, "help": "port to listen on (default: 8725)"}),
        ("--certificate", {"help": "TLS certificate (PEM)"}),
        ("--key", {"help": "its key"}),
        ("--plain-http", {"action": "store_true", "help": "no TLS though the host is no loopback"}),
        ("--engine", {"choices": ["cwltool", "toil"], "help": "what runs workflows (default: cwltool)"}),
        ("--engine-argument", {"action": "append", "default": [], "help": "for Toil; may be given several times"}),
    ], "serve --engine toil --engine-argument=--batchSystem=slurm"),
    "account": (account, [("name", {"help": "a-z, 0-9, '.', '_' and '-'"})], "account alice"),
    "register": (register, [
        ("definition", {"help": "a definition's file, or a task exported as cwl, - for standard input"}),
        ("--local-image", {"help": "a local image that gets the definition's name for it first"}),
        ("--ogc", {"metavar": "URL", "help": "deploy on a server with OGC API Processes, part 2, instead"}),
    ], "register hello-gbdx/hello-gbdx_definition.json --local-image localhost/hello-gbdx:dev"),
    "list": (list_tasks, [], "list"),
    "describe": (describe, [TASK], "describe hello-gbdx:0.1.0"),
    "delete": (delete, [TASK], "delete hello-gbdx"),
    "launch": (launch, [("workflow", {"help": "a workflow's file, - for standard input"}), WATCH],
               "launch gbdx-platform/examples/hello_chain.json --watch"),
    "status": (status, [WORKFLOW, WATCH], "status 1234567890123456789 --watch"),
    "logs": (logs, [WORKFLOW, ("task", {"nargs": "?", "help": "one task's name or id (default: all)"})],
             "logs 1234567890123456789 second"),
    "cancel": (cancel, [WORKFLOW], "cancel 1234567890123456789"),
    "export": (export, [
        ("name", {"help": "a task, or a workflow's id"}),
        ("--format", {"default": "cwl", "choices": ["gbdx", "cwl", "eoap"], "help": "default: cwl"}),
    ], "export hello-gbdx --format eoap"),
    "upload": (upload, [
        ("source", {"help": "a folder or a file"}), ("below", {"help": "where to, below the account's prefix"}),
    ], "upload hello-gbdx/test_inputs/data_in hello/in"),
    "download": (download, [
        ("below", {"help": "from where, below the account's prefix"}), ("folder", {"help": "where to"}),
    ], "download hello/second results"),
    "client-env": (client_env, [], 'client-env   # in a shell: eval "$(gbdx-platform client-env)"'),
    "demo": (demo, [
        ("definition", {"help": "hello-gbdx's definition"}), ("inputs", {"help": "a folder of files"}),
        ("--local-image", {"help": "a local image that gets the definition's name for it first"}),
    ], "demo hello-gbdx/hello-gbdx_definition.json hello-gbdx/test_inputs/data_in"),
}  # fmt: skip
FIRST_STEPS = """In this order:
  gbdx-platform serve                                       in a terminal of its own
  gbdx-platform register hello-gbdx/hello-gbdx_definition.json --local-image localhost/hello-gbdx:dev
  gbdx-platform upload hello-gbdx/test_inputs/data_in hello/in
  gbdx-platform launch gbdx-platform/examples/hello_chain.json --watch
  gbdx-platform download hello/second results

Exit codes: 0 done, 1 the workflow did not succeed, 2 refused, with a line for each reason, 130 interrupted.
GBDX_URL and GBDX_TOKEN name another service than the one that `serve` started for this user."""


def arguments_parser() -> argparse.ArgumentParser:
    """The commands, each with its arguments and an example."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="gbdx-platform", description="Register GBDX tasks and run workflows of them.", epilog=FIRST_STEPS,
        formatter_class=raw,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--state", help="folder of state (default: GBDX_STATE, or ~/.local/state/gbdx-platform)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (function, parameters, example) in COMMANDS.items():
        said = function.__doc__ or ""
        command = commands.add_parser(
            name, help=said, description=said, epilog=f"Example: gbdx-platform {example}", formatter_class=raw
        )
        command.set_defaults(function=function)
        for flag, settings in parameters:
            command.add_argument(flag, **settings)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """One command; 0 when it did what was asked, 1 when a workflow failed, 2 when it was refused."""
    options = arguments_parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except (BotoCoreError, S3Error) as error:
        print(f"object storage: {error}", file=sys.stderr)
    except (ClientError, StorageError, OSError) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
