"""A workflow request: its shape, then everything that is wrong with it at once, held against the registry."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import BaseModel, Field, HttpUrl, StrictBool, StrictStr, TypeAdapter, ValidationError

from gbdx_platform.cwl_tool import input_ports, is_string, output_ports
from gbdx_platform.cwl_workflow import source_of
from gbdx_platform.database import Row
from gbdx_platform.storage import StorageError, parse
from gbdx_platform.task_definition import Problem, key_path, quoted
from gbdx_platform.task_verdict import owner_of

LONGEST_TIMEOUT = 172800
MOST_TASKS = 500
MOST_BATCH = 5000
# Of a batch: runs of its tasks, and characters of the requests that are made of it.
MOST_RUNS = 20_000
LARGEST_BATCH = 2**28
MOST_CYCLES = 10
# A member of a multiplex port is a folder of its name in the container, and so is what is looked for after the run;
# ports.json is a file there.
FOLDER_NAME = re.compile(r"(?![.]|ports[.]json$)[^/\\\x00-\x1f]+")
# Without \s* around the name, which would be tried in cubes of what is sent: list_name takes the blanks off.
BATCH_NAME = re.compile(r"\{\{([^{}]+)\}\}|^\$batch_value:(.+)$")
ADDRESS = TypeAdapter(HttpUrl)
# pydantic's types of faults, or their first words, in ours.
SHAPES = {
    "missing": "a value",
    "model": "an object",
    "list": "a list",
    "string": "a string",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "finite": "a number",
    "json": "JSON",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "text without NUL",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}
# What the registry says of the task of early gbdxtools' `savedata`, where nobody has registered one; see `staged`.
STAGING: Row = {
    "entrypoint": False,
    "command": [],
    "definition": {
        "name": "StageDataToS3",
        "description": "Keeps an output in S3, as persist and persistLocation do.",
        "properties": {"isPublic": True, "timeout": 7200},
        "inputPortDescriptors": [
            {"name": "data", "type": "directory", "required": True, "description": "An output of another task."},
            {"name": "destination", "type": "string", "required": True, "description": "Its URL below your prefix."},
        ],
        "outputPortDescriptors": [],
        "containerDescriptors": [{"type": "DOCKER", "command": "", "properties": {"image": "none:none"}}],
    },
}


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
    kind, said = fault["type"], fault.get("ctx") or {}
    # Where a value may have several types, pydantic puts the type behind the key, and finds a fault for each.
    path = [part for part in fault["loc"] if part not in ("str", "bool")]
    expected = SHAPES.get(kind) or SHAPES.get(kind.partition("_")[0], fault["msg"])
    if len(path) < len(fault["loc"]):
        expected = "a string, true or false"
    found = {"missing": "nothing: the key is missing", "json_invalid": str(said.get("error"))}.get(kind)
    if "actual_length" in said:
        found = str(said["actual_length"])
    key = key_path(path) if path else "workflow"
    return Problem(key, expected.format(**said), found or quoted(fault["input"]))


def problems_of(request: dict[str, Any], registry: dict[str, Row]) -> list[Problem]:
    """Everything that is wrong with a request of the right shape. registry: taskType -> row, what was found."""
    kinds = {task_type: row["definition"] for task_type, row in registry.items()}
    names = [task["name"] for task in request["tasks"]]
    definitions = {task["name"]: kinds.get(task["taskType"]) for task in reversed(request["tasks"])}
    found: list[Problem] = []
    batch = "batch_values" in request
    for index, task in enumerate(request["tasks"]):
        key = f"tasks[{index}]"
        if names.index(task["name"]) < index:
            found.append(Problem(f"{key}.name", "a name that no other task has", quoted(task["name"])))
        if ":" in task["name"] or not safe_location(task["name"]):
            found.append(Problem(f"{key}.name", "a name without ':' that is no path upwards", quoted(task["name"])))
        if definition := kinds.get(task["taskType"]):
            found += input_problems(f"{key}.inputs", task["inputs"], input_ports(definition), definitions, batch)
            found += output_problems(f"{key}.outputs", task["outputs"], output_ports(definition))
        else:
            found.append(Problem(f"{key}.taskType", "a registered task that you may use", quoted(task["taskType"])))
    found += cycle_problems(request["tasks"])
    if (callback := request.get("callback")) and not is_address(callback):
        found.append(Problem("callback", "an http or https URL", quoted(callback)))
    return found


def is_address(text: str) -> bool:
    """Whether a text is an http or https URL as it stands; pydantic would mend blanks and missing slashes."""
    try:
        ADDRESS.validate_python(text)
    except ValidationError:
        return False
    return re.fullmatch(r"https?://[^/\s]\S*", text) is not None


def known(ports: list[dict[str, Any]], before: str = "") -> str:
    """The ports that may be named."""
    names = [f"{before}{port['name']}{'...' if port.get('multiplex') else ''}" for port in ports]
    return "one of " + (", ".join(names) or "no output port")


def name_problems(key: str, entries: list[dict[str, Any]], ports: list[dict[str, Any]]) -> Iterator[Problem]:
    """Unknown ports, members of a multiplex port that are no folder's name, ports given twice."""
    names: set[str] = set()
    for number, name in enumerate(entry["name"] for entry in entries):
        port = owner_of(name, ports)
        if port is None:
            yield Problem(f"{key}[{number}].name", known(ports), quoted(name))
        elif port.get("multiplex") and not FOLDER_NAME.fullmatch(name):
            yield Problem(f"{key}[{number}].name", "a folder's name, other than ports.json", quoted(name))
        if name in names:
            yield Problem(f"{key}[{number}].name", "each port once", quoted(name))
        names.add(name)


def input_problems(
    key: str, entries: list[dict[str, Any]], ports: list[dict[str, Any]], definitions: dict[str, Any], batch: bool
) -> Iterator[Problem]:
    """Wrong names, wrong types, missing required ports.

    definitions: by the tasks' names, None where unknown; batch: whether directories may name a batch's lists.
    """
    yield from name_problems(key, entries, ports)
    owners = [owner_of(entry["name"], ports) for entry in entries]
    for number, (entry, port) in enumerate(zip(entries, owners, strict=True)):
        if port:
            yield from value_problems(f"{key}[{number}]", entry, port, definitions, batch)
    for port in ports:
        if port.get("required") and port not in owners:
            given = ", ".join(entry["name"] for entry, owner in zip(entries, owners, strict=True) if owner)
            yield Problem(key, f"the required port {quoted(port['name'])}", given or "none")


def value_problems(
    where: str, entry: dict[str, Any], port: dict[str, Any], definitions: dict[str, Any], batch: bool
) -> Iterator[Problem]:
    """What is wrong with the value or the source of one input; a string is text, whatever is in it."""
    if ("value" in entry) == ("source" in entry):
        yield Problem(where, "either a value or a source", "both" if "value" in entry else "neither")
    elif "source" in entry:
        yield from source_problems(f"{where}.source", entry["source"], port, definitions)
    elif is_string(port):
        return
    elif not isinstance(entry["value"], str):
        yield Problem(f"{where}.value", "the URL of a directory", quoted(entry["value"]))
    elif BATCH_NAME.search(entry["value"]):
        if not batch:
            expected = "the URL of a directory: placeholders are for a batch, with batch_values"
            yield Problem(f"{where}.value", expected, quoted(entry["value"]))
    else:
        try:
            parse(entry["value"])
        except StorageError as error:
            yield Problem(f"{where}.value", "the URL of a directory", str(error))


def source_problems(where: str, source: str, port: dict[str, Any], definitions: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with `<task>:<output port>`."""
    name, colon, output = source.partition(":")
    if not colon or name not in definitions:
        yield Problem(where, "<task of this workflow>:<output port>", quoted(source))
    elif definitions[name]:  # else it is reported at that task
        outputs = output_ports(definitions[name])
        from_port = owner_of(output, outputs)
        if from_port is None or (from_port.get("multiplex") and not FOLDER_NAME.fullmatch(output)):
            yield Problem(where, known(outputs, f"{name}:"), quoted(source))
        elif is_string(from_port) != is_string(port):
            wanted, found = ("string" if is_string(one) else "directory" for one in (port, from_port))
            yield Problem(where, f"a {wanted} for the port {quoted(port['name'])}", f"the {found} {quoted(source)}")


def output_problems(key: str, entries: list[dict[str, Any]], ports: list[dict[str, Any]]) -> Iterator[Problem]:
    """Wrong names, strings that should be persisted, places outside the prefix."""
    yield from name_problems(key, entries, ports)
    for number, entry in enumerate(entries):
        if entry.get("persist") and is_string(owner_of(entry["name"], ports) or {}):
            yield Problem(f"{key}[{number}].persist", "false: strings can't be persisted", "true")
        place = entry.get("persistLocation")
        if place is not None and not safe_location(place):
            yield Problem(f"{key}[{number}].persistLocation", "a relative path without '..'", quoted(place))


def safe_location(place: str) -> bool:
    """Whether a persistLocation stays below the prefix."""
    parts = place.strip("/").split("/")
    return bool(place) and not place.startswith("/") and all(part.strip() and part not in (".", "..") for part in parts)


def cycle_problems(tasks: list[dict[str, Any]]) -> Iterator[Problem]:
    """Tasks that wait for each other, a problem for each of the first circles."""
    waits: dict[str, set[str]] = {task["name"]: set() for task in tasks}
    for task in tasks:
        waits[task["name"]] |= {source[0] for entry in task["inputs"] if (source := source_of(entry))}
    for _ in range(MOST_CYCLES):
        try:
            TopologicalSorter(waits).prepare()
        except CycleError as error:
            circle = set(error.args[1])
            yield Problem("tasks", "sources without a cycle", "tasks in one: " + ", ".join(sorted(circle)))
            waits = {name: others - circle for name, others in waits.items() if name not in circle}
        else:
            return


def batch_requests(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One request for each index of a batch's lists, made as it is taken.

    Raises:
        RequestError: no lists, two of one name that differ, lists of different lengths, names that are used but not
            listed, more than is bearable.
    """
    lists: dict[str, list[Any]] = {}
    for index, entry in enumerate(request.get("batch_values") or []):
        # GBDX's client names a list by its port alone, and sends it once for each task that it was given to.
        if lists.setdefault(entry["name"], entry["values"]) != entry["values"]:
            expected = "a name that no list of other values has"
            raise RequestError([Problem(f"batch_values[{index}].name", expected, quoted(entry["name"]))])
    found = [f"{name}: {len(values)}" for name, values in lists.items()]
    if len({len(values) for values in lists.values()}) != 1 or not all(lists.values()):
        raise RequestError([Problem("batch_values", "lists of one length, at least 1", ", ".join(found) or "none")])
    items, tasks = len(next(iter(lists.values()))), len(request["tasks"])
    if items * tasks > MOST_RUNS:
        expected = f"at most {MOST_RUNS} runs of tasks in one batch"
        raise RequestError([Problem("batch_values", expected, f"{items} times {tasks}: {items * tasks}")])
    values = [entry["value"] for task in request["tasks"] for entry in task["inputs"] if "value" in entry]
    named = [list_name(match) for value in values for match in BATCH_NAME.finditer(str(value))]
    if unknown := sorted(set(named) - lists.keys()):
        raise RequestError([Problem("batch_values", f"a list for each of {', '.join(unknown)}", ", ".join(lists))])
    longest = {name: max(len(str(one)) for one in given) for name, given in lists.items()}
    size = items * (len(json.dumps(request["tasks"])) + sum(longest[name] for name in named))
    if size > LARGEST_BATCH:
        expected = f"workflows that take at most {LARGEST_BATCH} characters in all"
        raise RequestError([Problem("batch_values", expected, f"up to {size}")])
    yield from (filled(request, dict(zip(lists, one, strict=True))) for one in zip(*lists.values(), strict=True))


def staged(request: dict[str, Any], registry: dict[str, Row], bucket: str, account: str) -> dict[str, Any]:
    """A valid request in which outputs are persisted that it has StageDataToS3 copy, and which has no such task.

    Raises:
        RequestError: data that is no task's output, a destination outside the account's prefix, two for one output.
    """
    one, found = copy.deepcopy(request), []
    tasks = {task["name"]: task for task in one["tasks"]}
    for index, task in enumerate(one["tasks"]):
        if registry[task["taskType"]] is not STAGING:
            continue
        key, given = f"tasks[{index}].inputs", {entry["name"]: entry for entry in task["inputs"]}
        source, url = source_of(given["data"]), given["destination"].get("value")
        location = location_of(str(url), bucket, account)
        if source is None:
            found.append(Problem(key, 'a source for the port "data"', quoted(given["data"]["value"])))
        elif location is None:
            found.append(Problem(key, f"a destination below s3://{bucket}/{account}/", quoted(url)))
        else:
            outputs = tasks[source[0]]["outputs"]
            kept = {"name": source[1], "persist": True, "persistLocation": location}
            if any(output.get("persist") and output != kept for output in outputs if output["name"] == source[1]):
                found.append(Problem(key, f"one place for {':'.join(source)}", f"another beside {quoted(location)}"))
            outputs[:] = [output for output in outputs if output["name"] != source[1]] + [kept]
    if found:
        raise RequestError(found)
    return one | {"tasks": [task for task in one["tasks"] if registry[task["taskType"]] is not STAGING]}


def location_of(url: str, bucket: str, account: str) -> str | None:
    """What a URL is as a persistLocation of an account, None when it is outside its prefix."""
    try:
        place = parse(url)
    except StorageError:
        return None
    below = place.key.removeprefix(f"{account}/").rstrip("/")
    return below if place.bucket == bucket and below != place.key and safe_location(below) else None


def list_name(match: re.Match[str]) -> str:
    """The list that a batch's input names."""
    return match[1].strip() if match[1] else match[2]


def filled(request: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A request with the values of one index in place of the names."""
    one = copy.deepcopy({key: value for key, value in request.items() if key != "batch_values"})
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    for entry in (entry for task in one["tasks"] for entry in task["inputs"] if isinstance(entry.get("value"), str)):
        whole = BATCH_NAME.fullmatch(entry["value"])
        text = BATCH_NAME.sub(lambda match: texts[list_name(match)], entry["value"])
        entry["value"] = values[list_name(whole)] if whole else text
    return one
