"""The command `gbdx-platform`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError
from botocore.exceptions import ClientError as S3Error

from gbdx_platform import __version__
from gbdx_platform.client import ENDED, Client, ClientError, at, events_of
from gbdx_platform.settings import ServiceError, load
from gbdx_platform.storage import StorageError
from gbdx_platform.task_verdict import printable

# What `status` without an id asks for: the newest of all times.
ALL_HOURS, MOST_LISTED = 24 * 366 * 100, 50
COLORS = {"succeeded": "green", "failed": "red", "timedout": "red", "canceled": "yellow", "started": "cyan"}


def read_json(path: str) -> Any:
    """The JSON of a file, `-` for standard input."""
    try:
        return json.loads(sys.stdin.read() if path == "-" else Path(path).read_text("utf-8"))
    except OSError as error:
        found = "none" if isinstance(error, FileNotFoundError) else error.strerror
        raise ClientError(f"{path}: expected a file, found {found}") from None
    except ValueError as error:
        raise ClientError(f"{path}: expected JSON, found {error}") from None


def port_number(text: str) -> int:
    """A port to listen on."""
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 65535, found {text!r}")
    return int(text)


def show(value: Any) -> None:
    """A JSON answer for people and programs."""
    print(json.dumps(value, indent=4, ensure_ascii=False))


@contextmanager
def refusals(kind: type[Exception]) -> Iterator[None]:
    """Lets an error that is a sentence already count as a refusal."""
    try:
        yield
    except kind as error:
        raise ClientError(str(error)) from None


def serve(options: argparse.Namespace) -> None:
    """Starts the service."""
    from gbdx_platform import service

    for path in filter(None, (options.certificate, options.key)):
        Path(path).read_bytes()  # its error names the file, which TLS's own does not
    settings = load(
        options.state, host=options.host, port=options.port, engine=options.engine,
        engine_arguments=tuple(options.engine_argument) or None,
    )  # fmt: skip
    service.serve(settings, options.certificate, options.key, options.plain_http)


def account(options: argparse.Namespace) -> None:
    """Makes an account, or gives one a new password and ends its tokens; prints the password once."""
    from gbdx_platform import service

    with refusals(ValueError):
        password = service.add_account(load(options.state), options.name)
    print(f"account {options.name}, password {password} (shown once; the local S3 knows it from its next start on)")


def register(options: argparse.Namespace) -> None:
    """Registers a definition, or deploys it on another server (--ogc)."""
    definition = read_json(options.definition)
    if options.ogc:
        from gbdx_platform import ogc_processes

        print(ogc_processes.deploy(definition, options.ogc))
        return
    if isinstance(definition, dict) and "cwlVersion" in definition:
        from gbdx_platform.cwl_tool import definition_of

        with refusals(ValueError):
            definition = definition_of(definition)
    client = Client(options.state)
    if options.local_image:
        name_image(client, definition, options.local_image)
    print(client.ask("POST", at("tasks"), definition).text)


def name_image(client: Client, definition: Any, local: str) -> None:
    """Gives a local image the name that a definition has for it; not when that version is registered already."""
    from gbdx_platform import containers

    try:
        task_type = f"{definition['name']}:{definition.get('version') or '0.0.1'}"
        wanted = definition["containerDescriptors"][0]["properties"]["image"]
    except (KeyError, IndexError, TypeError):
        return  # the service says what is missing
    if client.look(at("tasks", task_type)):
        raise ClientError(f"task {task_type!r} is registered already: raise the definition's version")
    with refusals(containers.ImageError):
        done = containers.call("tag", local, wanted)
    if done.returncode:
        raise ClientError(f"image {local!r}: expected it in the engine's store, found: {done.stderr.strip()}")


def list_tasks(options: argparse.Namespace) -> None:
    """Lists the tasks."""
    for name in Client(options.state).ask("GET", at("tasks")).json()["tasks"]:
        print(name)


def describe(options: argparse.Namespace) -> None:
    """Shows a definition."""
    show(Client(options.state).ask("GET", at("tasks", options.task)).json())


def delete(options: argparse.Namespace) -> None:
    """Deletes a task."""
    print(Client(options.state).ask("DELETE", at("tasks", options.task)).text)


def launch(options: argparse.Namespace) -> int:
    """Launches a workflow, or a batch of them; prints its id."""
    request, client = read_json(options.workflow), Client(options.state)
    identifier = client.launch(request)
    print(identifier, flush=True)
    return watch(client, identifier, True) if options.watch else 0


def status(options: argparse.Namespace) -> int:
    """Shows the state of a workflow or a batch; --watch until it is complete. Without an id the newest workflows."""
    client = Client(options.state)
    if options.workflow is not None:
        return watch(client, options.workflow, options.watch)
    if options.watch:
        raise ClientError("--watch: expected the id of a workflow or a batch, found none")
    body = {"lookback_h": ALL_HOURS, "limit": MOST_LISTED}
    for found in client.ask("POST", at("workflows", "search"), body).json()["Workflows"]:
        state = "/".join(found["state"].values())
        print(f"{found['id']} {found['submitted_time'][:19]} {state} {printable(found['name'])}")
    return 0


def table(found: dict[str, Any]) -> Any:
    """A workflow or a batch as a table of rich."""
    from rich.table import Table
    from rich.text import Text

    if "batch_workflow_id" in found:
        counts = Counter(one["state"] for one in found["workflows"])
        said = ", ".join(f"{count} {state}" for state, count in counts.items())
        title = f"batch {found['batch_workflow_id']} {found['workflow_name']}\n{said}"
        shown = Table("workflow", "state", title=Text(title))
        for one in found["workflows"]:
            shown.add_row(one["workflow_id"], Text(one["state"], COLORS.get(one["state"], "")))
        return shown
    shown = Table("task", "type", "state", "note", title=f"{found['id']} {'/'.join(found['state'].values())}")
    for task in found["tasks"]:
        state = Text("/".join(task["state"].values()), COLORS.get(task["state"]["event"], ""))
        shown.add_row(Text(task["name"]), Text(task["taskType"]), state, Text(task["note"]))
    return shown


def watch(client: Client, identifier: str, patient: bool) -> int:
    """Shows a workflow or a batch; patient: until all of it is complete, and 1 when it did not succeed."""
    from rich.live import Live

    with Live(refresh_per_second=4) as live:
        while True:
            found = client.workflow_or_batch(identifier)
            live.update(table(found), refresh=True)
            events = events_of(found)
            if not patient or events <= ENDED:
                break
            time.sleep(0.25)
    if not live.console.is_terminal:
        print()  # where rich leaves the last line open
    return int(patient and events != {"succeeded"})


def one_workflow(client: Client, identifier: str) -> Any:
    """The workflow object that has an id; a batch's is refused."""
    found = client.workflow_or_batch(identifier)
    if "workflows" in found:
        raise ClientError(f"{identifier}: expected a workflow, found a batch; `status` lists its workflows")
    return found


def logs(options: argparse.Namespace) -> None:
    """Prints what a workflow's tasks printed, or one of them."""
    client = Client(options.state)
    found = one_workflow(client, options.workflow)
    tasks = [task for task in found["tasks"] if options.task in (None, task["name"], task["id"])]
    if not tasks:
        names = ", ".join(task["name"] for task in found["tasks"])
        raise ClientError(f"{options.task}: expected a task of the workflow ({names}), found none of that name")
    for task in tasks:
        for stream in ("stdout", "stderr"):
            text = client.ask("GET", at("workflows", options.workflow, "tasks", task["id"], stream)).text
            print(f"--- {task['name']} {stream}\n{text}")


def cancel(options: argparse.Namespace) -> None:
    """Cancels a workflow, or all of a batch."""
    client = Client(options.state)
    kind = "batch_workflows" if "workflows" in client.workflow_or_batch(options.workflow) else "workflows"
    client.ask("POST", at(kind, options.workflow, "cancel"))
    print(f"{options.workflow}: canceling what has not ended")


def export(options: argparse.Namespace) -> None:
    """Prints a task, or a workflow by its id, in another format."""
    client, kind = Client(options.state), "tasks"
    if options.name.isdigit() and len(options.name) == 19:
        one_workflow(client, options.name)
        kind = "workflows"
    show(client.ask("GET", at(kind, options.name), format=options.format).json())


def upload(options: argparse.Namespace) -> None:
    """Uploads a folder or a file below the account's prefix, prints its URL; a broken upload goes on."""
    print(Client(options.state).upload(Path(options.source), options.below))


def download(options: argparse.Namespace) -> None:
    """Downloads what lies below the account's prefix into a folder; a broken download goes on."""
    target = Path(options.folder)
    count = Client(options.state).download(options.below, target)
    print(f"{count} file{'' if count == 1 else 's'} in {target}")


def client_env(options: argparse.Namespace) -> None:
    """Prints environment variables for other clients, GBDX's own among them; they hold secrets."""
    client = Client(options.state)
    values: dict[str, Any] = {}
    try:
        given = client.s3_credentials()
        values = {
            "AWS_ENDPOINT_URL_S3": given.get("endpoint"), "AWS_ACCESS_KEY_ID": given["S3_access_key"],
            "AWS_SECRET_ACCESS_KEY": given["S3_secret_key"], "AWS_SESSION_TOKEN": given["S3_session_token"],
        }  # fmt: skip
    except ClientError as error:
        print(error, file=sys.stderr)
    # Behind the request, which fetches another token where this one has expired.
    values |= {"GBDX_URL": str(client.http.base_url).rstrip("/"), "GBDX_TOKEN": client.token}
    if client.token == client.known.get("token"):
        values |= {"GBDX_USERNAME": client.known["username"], "GBDX_PASSWORD": client.known["password"]}
    for name, value in values.items():
        if value:
            print(f"export {name}={shlex.quote(value)}")
    # There, a sitecustomize.py leads clients that have GBDX's own address written in their code to GBDX_URL.
    folder = Path(__file__).with_name("original_client")
    print(f"export PYTHONPATH={shlex.quote(str(folder))}${{PYTHONPATH:+:$PYTHONPATH}}")


def demo(options: argparse.Namespace) -> None:
    """The whole way once, in a folder of its own."""
    from gbdx_platform.demo import run

    run(options.definition, options.inputs, options.local_image)


TASK = ("task", {"help": "name, or name:version"})
WORKFLOW = ("workflow", {"help": "its id"})
LOCAL_IMAGE = ("--local-image", {"help": "a local image that gets the definition's name for it first"})
WATCH = ("--watch", {"action": "store_true", "help": "a live table until it is complete; Ctrl-C ends the table only"})
# command -> function, (arguments of add_argument)..., an example
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int | None], list[tuple[str, dict[str, Any]]], str]] = {
    "serve": (serve, [
        ("--host", {"help": "address to listen on (default: 127.0.0.1)"}),
        ("--port", {"type": port_number, "help": "port to listen on (default: 8725)"}),
        ("--certificate", {"help": "TLS certificate (PEM)"}),
        ("--key", {"help": "its key"}),
        ("--plain-http", {"action": "store_true", "help": "no TLS though the host is no loopback"}),
        ("--engine", {"choices": ["cwltool", "toil"], "help": "what runs workflows (default: cwltool)"}),
        ("--engine-argument", {"action": "append", "default": [], "help": "for Toil; may be given several times"}),
    ], "serve --engine toil --engine-argument=--batchSystem=slurm"),
    "account": (account, [("name", {"help": "a-z, 0-9, '.', '_' and '-'"})], "account alice"),
    "register": (register, [
        ("definition", {"help": "a definition's file, or a task exported as cwl, - for standard input"}),
        LOCAL_IMAGE,
        ("--ogc", {"metavar": "URL", "help": "deploy on a server with OGC API Processes, part 2, instead"}),
    ], "register hello-gbdx/hello-gbdx_definition.json --local-image localhost/hello-gbdx:dev"),
    "list": (list_tasks, [], "list"),
    "describe": (describe, [TASK], "describe hello-gbdx:0.1.0"),
    "delete": (delete, [TASK], "delete hello-gbdx"),
    "launch": (launch, [("workflow", {"help": "a workflow's file, - for standard input"}), WATCH],
               "launch gbdx-platform/examples/hello_chain.json --watch"),
    "status": (status, [("workflow", {"nargs": "?", "help": "its id (default: lists the newest 50)"}), WATCH],
               "status 1234567890123456789 --watch"),
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
        ("definition", {"help": "hello-gbdx's definition"}), ("inputs", {"help": "a folder of files"}), LOCAL_IMAGE,
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
        code = int(options.function(options) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, `head` for one, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (BotoCoreError, S3Error) as error:
        print(f"object storage: {error}", file=sys.stderr)
    except (ClientError, ServiceError, StorageError, OSError) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        return 130  # what was launched goes on
    return 2


if __name__ == "__main__":
    sys.exit(main())
