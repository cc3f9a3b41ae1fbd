"""`from gbdxtools import Interface`: what the walkthrough uses of GBDX's Python client, written anew.

The client itself has left the package index; its name there is an empty placeholder. Where the real one is installed,
Python finds that first. `Interface()` talks to the service that `gbdx-platform serve` started for this user, or to
GBDX_URL with GBDX_TOKEN.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbdx_platform.client import ENDED, Client, at, events_of


@dataclass
class Port:
    """A port of a task. value: what an input gets; of an output `source:task:port`, which other tasks' inputs take."""

    name: str
    value: Any = None
    persist: bool = False
    persist_location: str | None = None


class Ports:
    """The ports of one side of a task as attributes: those declared, and any that extend a multiplex port's name."""

    def __init__(self, declared: list[dict[str, Any]], task: str | None = None) -> None:
        vars(self).update(_declared=declared, _task=task, _used={})
        for port in declared:
            if not port.get("multiplex"):
                getattr(self, port["name"])

    def __getattr__(self, name: str) -> Port:
        known = {one["name"]: bool(one.get("multiplex")) for one in self._declared}
        if not any(name == one or (multiplex and name.startswith(one)) for one, multiplex in known.items()):
            raise AttributeError(f"port: expected one of {', '.join(known)}, found {name!r}")
        return self._used.setdefault(name, Port(name, self._task and f"source:{self._task}:{name}"))

    def __setattr__(self, name: str, value: Any) -> None:
        getattr(self, name).value = value.value if isinstance(value, Port) else value

    def __iter__(self) -> Iterator[Port]:
        return iter(self._used.values())


class Task:
    """A task of a workflow to be; its ports are `inputs` and `outputs`. An input that is a list makes a batch."""

    def __init__(self, interface: Interface, kind: str, **inputs: Any) -> None:
        self.type, self.name = kind, f"{kind}_{uuid.uuid4()}"
        self.definition = interface.task_registry.get_definition(kind)
        self.timeout = self.definition["properties"]["timeout"]
        self.domain = self.definition["containerDescriptors"][0]["properties"].get("domain", "default")
        self.inputs = Ports(self.definition["inputPortDescriptors"])
        self.outputs = Ports(self.definition.get("outputPortDescriptors") or [], self.name)
        self.set(**inputs)

    def set(self, **inputs: Any) -> None:
        """Sets inputs by name."""
        for name, value in inputs.items():
            setattr(self.inputs, name, value)

    def request(self, lists: dict[tuple[str, str], str]) -> dict[str, Any]:
        """The task as a part of a workflow request. lists: see Workflow.lists."""
        # The definition's own timeout is not repeated: it may be 0 or 172800, and a request's may not.
        changed = self.timeout != self.definition["properties"]["timeout"]
        return {
            "name": self.name,
            "taskType": self.type,
            "inputs": [
                input_request(one, lists.get((self.name, one.name))) for one in self.inputs if one.value is not None
            ],
            "outputs": [output_request(one) for one in self.outputs],
            "containerDescriptors": [{"properties": {"domain": self.domain}}],
            **({"timeout": self.timeout} if changed else {}),
        }


def input_request(port: Port, values: str | None) -> dict[str, Any]:
    """An input as a part of a workflow request: a value, a source, or the name of a batch's values."""
    if values:
        return {"name": port.name, "value": f"{{{{{values}}}}}"}
    if str(port.value).startswith("source:"):
        return {"name": port.name, "source": port.value.removeprefix("source:")}
    return {"name": port.name, "value": str(port.value).lower() if isinstance(port.value, bool) else port.value}


def output_request(port: Port) -> dict[str, Any]:
    """An output as a part of a workflow request."""
    place = {"persistLocation": port.persist_location} if port.persist_location else {}
    return {"name": port.name} | ({"persist": True} | place if port.persist else {})


class Workflow:
    """Tasks that run together, or as a batch once for each value of their lists."""

    def __init__(self, interface: Interface, tasks: list[Task], name: str | None = None) -> None:
        self.calls, self.tasks, self.name, self.id = interface.workflow, tasks, name or str(uuid.uuid4()), ""

    def savedata(self, output: Port, location: str | None = None) -> None:
        """Keeps an output in S3, below the account's prefix."""
        output.persist, output.persist_location = True, location

    @property
    def lists(self) -> dict[tuple[str, str], str]:
        """Names of the inputs that are lists, by task and port; a port's alone where only one task has a list there."""
        found = [(task.name, one.name) for task in self.tasks for one in task.inputs if isinstance(one.value, list)]
        ports = [port for _, port in found]
        return {
            (task, port): f"batch_input_{port}" if ports.count(port) == 1 else f"batch_input_{task}/{port}"
            for task, port in found
        }

    @property
    def batch_values(self) -> list[dict[str, Any]]:
        """The inputs that are lists."""
        given = {(task.name, one.name): one.value for task in self.tasks for one in task.inputs}
        return [{"name": name, "values": given[place]} for place, name in self.lists.items()]

    def execute(self) -> str:
        """Launches it; returns its id."""
        request = {"name": self.name, "tasks": [task.request(self.lists) for task in self.tasks]}
        self.id = self.calls.launch(request | ({"batch_values": self.batch_values} if self.batch_values else {}))
        return self.id

    @property
    def status(self) -> Any:
        """`{"state": ..., "event": ...}`; of a batch, the batch."""
        return (self.calls.batch_workflow_status if self.batch_values else self.calls.status)(self.id)

    @property
    def complete(self) -> bool:
        """Whether everything has ended."""
        return events_of(self.calls.workflow_or_batch(self.id)) <= ENDED

    @property
    def succeeded(self) -> bool:
        """Whether everything has ended well."""
        return events_of(self.calls.workflow_or_batch(self.id)) == {"succeeded"}

    @property
    def events(self) -> Any:
        """What happened to its tasks."""
        return self.calls.events(self.id)

    def cancel(self) -> None:
        """Cancels it."""
        (self.calls.batch_workflow_cancel if self.batch_values else self.calls.cancel)(self.id)


class Interface:
    """The way in: `gbdx = Interface()`."""

    def __init__(self) -> None:
        client = Client()
        self.s3, self.workflow, self.task_registry = S3(client), Workflows(client), TaskRegistry(client)

    def Task(self, kind: str, **inputs: Any) -> Task:
        """A task of a workflow to be."""
        return Task(self, kind, **inputs)

    def Workflow(self, tasks: list[Any], name: str | None = None) -> Workflow:
        """A workflow to be."""
        return Workflow(self, tasks, name)


class TaskRegistry:
    """`gbdx.task_registry`."""

    def __init__(self, client: Client) -> None:
        self.ask = client.ask

    def register(self, task_json: Any = None, json_filename: str | None = None) -> str:
        """Registers a definition, or the one in a file."""
        definition = json.loads(Path(json_filename).read_text("utf-8")) if json_filename else task_json
        return self.ask("POST", at("tasks"), definition).text

    def list(self) -> Any:
        """Names of tasks."""
        return self.ask("GET", at("tasks")).json()["tasks"]

    def get_definition(self, task: str) -> Any:
        """A definition."""
        return self.ask("GET", at("tasks", task)).json()

    def update(self, task: str, definition: Any) -> Any:
        """Replaces a version's definition."""
        return self.ask("PUT", at("tasks", task), definition).json()

    def delete(self, task: str) -> str:
        """Deletes a task."""
        return self.ask("DELETE", at("tasks", task)).text


class Workflows:
    """`gbdx.workflow`: the calls that take the id of a workflow, of a batch, of a task."""

    def __init__(self, client: Client) -> None:
        self.ask, self.workflow_or_batch = client.ask, client.workflow_or_batch
        self.launch = self.launch_batch_workflow = client.launch

    def get(self, workflow: str) -> Any:
        """The workflow object."""
        return self.ask("GET", at("workflows", workflow)).json()

    def status(self, workflow: str) -> Any:
        """`{"state": ..., "event": ...}`."""
        return self.get(workflow)["state"]

    def batch_workflow_status(self, batch: str) -> Any:
        """The batch object."""
        return self.ask("GET", at("batch_workflows", batch)).json()

    def events(self, workflow: str) -> Any:
        """What happened to its tasks."""
        return self.ask("GET", at("workflows", workflow, "events")).json()["Events"]

    def cancel(self, workflow: str) -> None:
        """Cancels a workflow."""
        self.ask("POST", at("workflows", workflow, "cancel"))

    def batch_workflow_cancel(self, batch: str) -> None:
        """Cancels a batch."""
        self.ask("POST", at("batch_workflows", batch, "cancel"))

    def get_stdout(self, workflow: str, task: str) -> str:
        """What a task printed."""
        return self.ask("GET", at("workflows", workflow, "tasks", task, "stdout")).text

    def get_stderr(self, workflow: str, task: str) -> str:
        """What a task printed as errors."""
        return self.ask("GET", at("workflows", workflow, "tasks", task, "stderr")).text


class S3:
    """`gbdx.s3`: the account's place in object storage."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def info(self) -> dict[str, Any]:
        """Bucket, prefix and keys."""
        return self.client.s3_credentials()

    def upload(self, local_file: str, s3_path: str | None = None) -> str:
        """Uploads a file below the account's prefix."""
        return self.client.upload(Path(local_file), s3_path or Path(local_file).name).removeprefix("s3://")

    def download(self, location: str, local_dir: str = ".") -> None:
        """Downloads what lies at or below a place below the account's prefix."""
        self.client.download(location, Path(local_dir))
