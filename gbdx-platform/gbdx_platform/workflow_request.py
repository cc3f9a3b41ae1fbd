"""A workflow request: its shape, then everything that is wrong with it at once, held against the registry."""

from __future__ import annotations

import copy
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from gbdx_platform.cwl_tool import input_ports, is_string, output_ports
from gbdx_platform.database import Row
from gbdx_platform.storage import StorageError, parse
from gbdx_platform.task_definition import Problem, key_path, quoted
from gbdx_platform.task_verdict import owner_of

LONGEST_TIMEOUT = 172800
MOST_TASKS = 500
MOST_BATCH = 5000
# A member of a multiplex port is a folder of its name in the container, and so is what is looked for after the run.
FOLDER_NAME = re.compile(r"(?![.])[^/\\\x00-\x1f]+")
BATCH_NAME = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}|^\$batch_value:(.+)$")


class RequestError(ValueError):
    """A request that is refused; `problems` are all the reasons, each with key, expected and found."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


class InputRequest(BaseModel):
    """An input of a task: a value, or another task's output."""

    name: StrictStr = Field(min_length=1)
    value: StrictStr | StrictBool | None = None
    source: StrictStr | None = None


class OutputRequest(BaseModel):
    """An output of a task, and whether it is kept."""

    model_config = ConfigDict(populate_by_name=True)
    name: StrictStr = Field(min_length=1)
    persist: StrictBool | None = None
    persistLocation: StrictStr | None = None


class DomainProperties(BaseModel):
    """Where a task runs."""

    domain: StrictStr | None = None


class DomainRequest(BaseModel):
    """A workflow's own container descriptor: only the domain counts."""

    properties: DomainProperties = DomainProperties()


class TaskRequest(BaseModel):
    """A task of a workflow."""

    name: StrictStr = Field(min_length=1, max_length=200)
    taskType: StrictStr = Field(min_length=1)
    inputs: list[InputRequest] = []
    outputs: list[OutputRequest] = []
    timeout: int | None = Field(default=None, gt=0, lt=LONGEST_TIMEOUT)
    containerDescriptors: list[DomainRequest] | None = None
    impersonation_allowed: bool | None = None


class BatchValues(BaseModel):
    """One list of a batch."""

    name: StrictStr
    values: list[StrictStr | StrictBool] = Field(max_length=MOST_BATCH)


class WorkflowRequest(BaseModel):
    """A workflow as a client sends it."""

    name: StrictStr = Field(min_length=1, max_length=200)
    tasks: list[TaskRequest] = Field(min_length=1, max_length=MOST_TASKS)
    callback: StrictStr | None = None
    batch_values: list[BatchValues] | None = None


MODELS = (InputRequest, OutputRequest, DomainProperties, DomainRequest, TaskRequest, BatchValues, WorkflowRequest)
FIELD_NAMES = {name for model in MODELS for name in model.model_fields}


def parsed(body: object) -> dict[str, Any]:
    """The request with its defaults, as plain JSON.

    Raises:
        RequestError: another shape.
    """
    try:
        found = WorkflowRequest.model_validate(body)
    except ValidationError as error:
        problems = [shape_problem(fault) for fault in error.errors(include_url=False)]
        raise RequestError(list(dict.fromkeys(problems))) from None
    return found.model_dump(exclude_none=True)


def shape_problem(fault: Any) -> Problem:
    """One finding of pydantic in our words."""
    path = [part for part in fault["loc"] if isinstance(part, int) or part in FIELD_NAMES]
    return Problem(key_path(path) if path else "workflow", fault["msg"], quoted(fault["input"]))


def problems_of(request: dict[str, Any], registry: dict[str, Row]) -> list[Problem]:
    """Everything that is wrong with a request of the right shape. registry: taskType -> row, what was found."""
    found: list[Problem] = []
    tasks = {task["name"]: task for task in reversed(request["tasks"])}
    for index, task in enumerate(request["tasks"]):
        key = f"tasks[{index}]"
        if tasks[task["name"]] is not task:
            found.append(Problem(f"{key}.name", "a name that no other task has", quoted(task["name"])))
        if ":" in task["name"] or not safe_location(task["name"]):
            found.append(Problem(f"{key}.name", "a name without ':' that is no path upwards", quoted(task["name"])))
        if task["taskType"] not in registry:
            found.append(Problem(f"{key}.taskType", "a registered task that you may use", quoted(task["taskType"])))
            continue
        definition = registry[task["taskType"]]["definition"]
        found += input_problems(key, task, definition, tasks, registry)
        found += output_problems(key, task, definition)
    found += cycle_problems(request["tasks"])
    callback = request.get("callback")
    if callback and not re.match(r"https?://[^/\s]", callback):
        found.append(Problem("callback", "an http or https URL", quoted(callback)))
    return found


def input_problems(
    key: str, task: dict[str, Any], definition: Row, tasks: dict[str, Any], registry: dict[str, Row]
) -> list[Problem]:
    """Unknown ports, ports given twice, wrong types, missing required ones."""
    found: list[Problem] = []
    ports = input_ports(definition)
    known = "one of " + ", ".join(port["name"] + ("..." if port.get("multiplex") else "") for port in ports)
    given: list[dict[str, Any]] = []
    names: set[str] = set()
    for number, entry in enumerate(task["inputs"]):
        where = f"{key}.inputs[{number}]"
        port = owner_of(entry["name"], ports)
        if port is None:
            found.append(Problem(f"{where}.name", known, quoted(entry["name"])))
            continue
        if entry["name"] in names:
            found.append(Problem(f"{where}.name", "each port once", quoted(entry["name"])))
        if port.get("multiplex") and not FOLDER_NAME.fullmatch(entry["name"]):
            found.append(Problem(f"{where}.name", "a port name without slashes", quoted(entry["name"])))
        names.add(entry["name"])
        given.append(port)
        found += value_problems(where, entry, port, tasks, registry)
    for port in ports:
        if port.get("required") and port not in given:
            found.append(
                Problem(f"{key}.inputs", f"the required port {quoted(port['name'])}", ", ".join(names) or "none")
            )
    return found


def value_problems(
    where: str, entry: dict[str, Any], port: dict[str, Any], tasks: dict[str, Any], registry: dict[str, Row]
) -> list[Problem]:
    """What is wrong with the value or the source of one input."""
    if ("value" in entry) == ("source" in entry):
        return [Problem(where, "either a value or a source", "both" if "value" in entry else "neither")]
    if "source" in entry:
        return source_problems(f"{where}.source", entry["source"], port, tasks, registry)
    if is_string(port):
        return []
    if not isinstance(entry["value"], str):
        return [Problem(f"{where}.value", "the URL of a directory", quoted(entry["value"]))]
    try:
        if not BATCH_NAME.search(entry["value"]):
            parse(entry["value"])
    except StorageError as error:
        return [Problem(f"{where}.value", "the URL of a directory", str(error))]
    return []


def source_problems(
    where: str, source: str, port: dict[str, Any], tasks: dict[str, Any], registry: dict[str, Row]
) -> list[Problem]:
    """What is wrong with `<task>:<output port>`."""
    name, colon, output = source.partition(":")
    if not colon or name not in tasks:
        return [Problem(where, "<task of this workflow>:<output port>", quoted(source))]
    row = registry.get(tasks[name]["taskType"])
    if row is None:
        return []  # reported at that task
    outputs = output_ports(row["definition"])
    from_port = owner_of(output, outputs)
    if from_port is None or (from_port.get("multiplex") and not FOLDER_NAME.fullmatch(output)):
        known = "one of " + ", ".join(f"{name}:{port['name']}" for port in outputs)
        return [Problem(where, known, quoted(source))]
    if is_string(from_port) != is_string(port):
        kinds = ["string" if is_string(one) else "directory" for one in (port, from_port)]
        return [Problem(where, f"a {kinds[0]} for the port {quoted(port['name'])}", f"the {kinds[1]} {quoted(source)}")]
    return []


def output_problems(key: str, task: dict[str, Any], definition: Row) -> list[Problem]:
    """Unknown ports, strings that should be persisted, places outside the prefix."""
    found: list[Problem] = []
    ports = output_ports(definition)
    names: set[str] = set()
    for number, entry in enumerate(task["outputs"]):
        where = f"{key}.outputs[{number}]"
        port = owner_of(entry["name"], ports)
        if port is None:
            known = ", ".join(one["name"] for one in ports) or "no output port"
            found.append(Problem(f"{where}.name", f"one of {known}", quoted(entry["name"])))
        elif port.get("multiplex") and not FOLDER_NAME.fullmatch(entry["name"]):
            found.append(Problem(f"{where}.name", "a port name without slashes", quoted(entry["name"])))
        elif entry.get("persist") and is_string(port):
            found.append(Problem(f"{where}.persist", "false: strings can't be persisted", "true"))
        if entry["name"] in names:
            found.append(Problem(f"{where}.name", "each port once", quoted(entry["name"])))
        names.add(entry["name"])
        place = entry.get("persistLocation")
        if place is not None and not safe_location(place):
            found.append(Problem(f"{where}.persistLocation", "a relative path without '..'", quoted(place)))
    return found


def safe_location(place: str) -> bool:
    """Whether a persistLocation stays below the prefix."""
    parts = place.strip("/").split("/")
    return bool(place) and not place.startswith("/") and all(part.strip() and part not in (".", "..") for part in parts)


def cycle_problems(tasks: list[dict[str, Any]]) -> list[Problem]:
    """Tasks that wait for each other, found by taking away those that wait for nothing left."""
    waits = {task["name"]: set() for task in tasks}  # type: dict[str, set[str]]
    for task in tasks:
        sources = [entry["source"].partition(":")[0] for entry in task["inputs"] if entry.get("source")]
        waits[task["name"]] |= {source for source in sources if source in waits}
    while free := [name for name, others in waits.items() if not others & waits.keys()]:
        for name in free:
            del waits[name]
    if not waits:
        return []
    return [Problem("tasks", "sources without a cycle", "tasks in one: " + ", ".join(sorted(waits)))]


def batch_requests(request: dict[str, Any]) -> list[dict[str, Any]]:
    """One request for each index of a batch's lists.

    Raises:
        RequestError: no lists, lists of different lengths, names that are used but not listed.
    """
    lists = {entry["name"]: entry["values"] for entry in request.get("batch_values") or []}
    lengths = {name: len(values) for name, values in lists.items()}
    found = [f"{name}: {length}" for name, length in lengths.items()]
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        raise RequestError([Problem("batch_values", "lists of one length, at least 1", ", ".join(found) or "none")])
    unknown = sorted(set(used_names(request)) - set(lists))
    if unknown:
        raise RequestError([Problem("batch_values", f"a list for each of {', '.join(unknown)}", ", ".join(lists))])
    return [
        filled(request, {name: values[index] for name, values in lists.items()})
        for index in range(next(iter(lengths.values())))
    ]


def used_names(request: dict[str, Any]) -> list[str]:
    """The names of lists that a batch's inputs hold."""
    values = [entry.get("value") for task in request["tasks"] for entry in task["inputs"]]
    return [
        first or second for value in values if isinstance(value, str) for first, second in BATCH_NAME.findall(value)
    ]


def filled(request: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A request with the values of one index in place of the names."""
    one = copy.deepcopy({key: value for key, value in request.items() if key != "batch_values"})
    for task in one["tasks"]:
        for entry in task["inputs"]:
            value = entry.get("value")
            if not isinstance(value, str):
                continue
            whole = BATCH_NAME.fullmatch(value)
            if whole:
                entry["value"] = values[whole[1] or whole[2]]
            else:
                entry["value"] = BATCH_NAME.sub(lambda match: str(values[match[1] or match[2]]), value)
    return one
