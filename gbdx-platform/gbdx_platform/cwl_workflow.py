"""A workflow request as a CWL v1.2 Workflow and its job inputs.

Each task is a step with a tool of its own (its timeout, its members of multiplex ports). A step runs only `when` all
the tasks that it waits for succeeded; a skipped one is what GBDX calls canceled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from gbdx_platform.cwl_tool import (
    NAMESPACES,
    RESERVED,
    STATUS,
    Cwl,
    cwl_ids,
    escaped,
    input_ports,
    is_string,
    member_definition,
    output_ports,
    port_ids,
    tool,
)


@dataclass
class Step:
    """One task of a workflow, bound to what will run."""

    name: str
    definition: Cwl
    request: dict[str, Any]
    image: str
    timeout: int
    domain: str = "default"
    own_command: list[str] | None = None
    special: Cwl = field(default_factory=dict)


@dataclass
class Plan:
    """A CWL document with its job inputs, and the names that lead back from it to tasks and ports.

    job: workflow input id -> string value, or None for a directory that is yet to be fetched
    folders: workflow input id -> (task name, port name, URL)
    steps: step id -> Step
    """

    document: Cwl
    job: dict[str, Any]
    folders: dict[str, tuple[str, str, str]]
    steps: dict[str, Step]


def source_of(entry: dict[str, Any]) -> tuple[str, str] | None:
    """(task name, output port) of an input that another task feeds, else None."""
    source = entry.get("source")
    return tuple(source.rsplit(":", 1)) if source else None


def used_outputs(name: str, requests: list[dict[str, Any]]) -> list[str]:
    """The output ports of a task that a workflow names: in its own outputs, or as a source of others."""
    own = [output["name"] for request in requests if request["name"] == name for output in request.get("outputs") or []]
    sources = [source_of(entry) for request in requests for entry in request.get("inputs") or []]
    return list(dict.fromkeys([*own, *(source[1] for source in sources if source and source[0] == name)]))


def plan(steps: list[Step], label: str = "workflow", bare: bool = False, ids: dict[str, str] | None = None) -> Plan:
    """The CWL workflow of a request that was found valid; bare as `tool` has it, and nothing but statuses come back.

    ids: task name -> step id, where they are given already.
    """
    requests = [step.request for step in steps]
    for step in steps:
        given = [entry["name"] for entry in step.request.get("inputs") or []]
        step.special = member_definition(step.definition, given, used_outputs(step.name, requests))
    ids = ids or cwl_ids([step.name for step in steps])
    by_name = {step.name: step for step in steps}
    inputs: Cwl = {}
    job: dict[str, Any] = {}
    folders: dict[str, tuple[str, str, str]] = {}
    document_steps: Cwl = {}
    for step in steps:
        step_id, (port_in, _) = ids[step.name], port_ids(step.special)
        kinds = {port["name"]: is_string(port) for port in input_ports(step.special)}
        wiring: Cwl = {}
        waits: list[str] = []
        for entry in step.request.get("inputs") or []:
            source = source_of(entry)
            target = port_in[entry["name"]]
            if source:
                _, outs = port_ids(by_name[source[0]].special)
                wiring[target] = {"source": f"{ids[source[0]]}/{outs[source[1]]}"}
                waits.append(source[0])
                continue
            workflow_input = f"{step_id}.{target}"
            wiring[target] = {"source": workflow_input}
            if kinds[entry["name"]]:
                inputs[workflow_input] = {"type": ["string", "boolean"]}
                job[workflow_input] = entry["value"]
            else:
                inputs[workflow_input] = {"type": "Directory"}
                folders[workflow_input] = (step.name, entry["name"], entry["value"])
        gates = [ids[name] for name in dict.fromkeys(waits)]
        document_steps[step_id] = step_document(step, step_id, wiring, gates, bare)
    document = {
        "cwlVersion": "v1.2",
        "class": "Workflow",
        "id": cwl_ids([label])[label],
        "label": label,
        "$namespaces": NAMESPACES,
        "requirements": {"InlineJavascriptRequirement": {}},
        "inputs": inputs,
        "outputs": workflow_outputs(steps, ids, bare),
        "steps": document_steps,
    }
    return Plan(document, job, folders, {ids[step.name]: step for step in steps})


def step_document(step: Step, step_id: str, wiring: Cwl, waits: list[str], bare: bool) -> Cwl:
    """A step: its tool, where its inputs come from, and the condition on the tasks that it waits for."""
    run = tool(step.special, step.image, step.timeout, step.own_command, f"{step_id}.", step.domain, bare)
    run["id"] = f"{step_id}-tool"
    if bare:
        write_constants(run, step)
    for key in ("cwlVersion", "$namespaces", "gbdx:definition"):
        run.pop(key)
    _, outs = port_ids(step.special)
    gates = {f"gbdx.gate_{number}": {"source": f"{waited}/{STATUS}"} for number, waited in enumerate(waits)}
    document: Cwl = {
        "run": run,
        "in": {**wiring, **gates},
        "out": [*outs.values(), *(RESERVED[:1] if bare else RESERVED)],
    }
    if gates:
        condition = " && ".join(f'inputs["{gate}"] === "success"' for gate in gates)
        document["when"] = f"$({condition})"
    return document


def write_constants(run: Cwl, step: Step) -> None:
    """Writes input/ports.json as it will be, where no task feeds it: an expression would cost a process of node."""
    strings = {port["name"] for port in input_ports(step.special) if is_string(port)}
    given = [entry for entry in step.request.get("inputs") or [] if entry["name"] in strings]
    if any(entry.get("source") for entry in given):
        return
    for entry in run["requirements"]["InitialWorkDirRequirement"]["listing"]:
        if isinstance(entry, dict) and entry["entryname"] == "input/ports.json":
            entry["entry"] = escaped(json.dumps({one["name"]: one["value"] for one in given}))


def workflow_outputs(steps: list[Step], ids: dict[str, str], bare: bool) -> Cwl:
    """What comes back of each task: its status and logs, its strings, and the directories that are persisted."""
    outputs: Cwl = {}
    for step in steps:
        step_id, (_, outs) = ids[step.name], port_ids(step.special)
        if bare:
            outputs[f"{step_id}.{STATUS}"] = {"type": ["null", "string"], "outputSource": f"{step_id}/{STATUS}"}
            continue
        persisted = {output["name"] for output in step.request.get("outputs") or [] if output.get("persist")}
        for name in RESERVED:
            kind = {"gbdx_status": "string", "gbdx_exit_code": "int"}.get(name, "File")
            outputs[f"{step_id}.{name}"] = {"type": ["null", kind], "outputSource": f"{step_id}/{name}"}
        for port in output_ports(step.special):
            if port["name"] in persisted and not is_string(port):
                source = f"{step_id}/{outs[port['name']]}"
                outputs[f"{step_id}.{outs[port['name']]}"] = {"type": ["null", "Directory"], "outputSource": source}
    return outputs
