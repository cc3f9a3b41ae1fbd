"""A workflow request as a CWL v1.2 Workflow and its job inputs.

Each task is a step with a tool of its own (its timeout, its members of multiplex ports). A step runs only `when` all
the tasks that it waits for succeeded and have left what it requires; a skipped one is what GBDX calls canceled, or
failed when it was for an output that is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gbdx_platform.cwl_tool import (
    NAMESPACES,
    RESERVED,
    STATUS,
    Cwl,
    Step,
    bare_tool,
    cwl_ids,
    input_ports,
    is_string,
    member_definition,
    output_ports,
    port_ids,
    run_tool,
)

__all__ = ["Plan", "Step", "plan", "source_of"]


@dataclass
class Plan:
    """A CWL document with its job inputs, and the names that lead back from it to tasks and ports.

    job: workflow input id -> string value
    folders: workflow input id -> (task name, port name, URL) of a directory that is yet to be fetched
    steps: step id -> Step
    """

    document: Cwl
    job: dict[str, Any]
    folders: dict[str, tuple[str, str, str]]
    steps: dict[str, Step]


def source_of(entry: dict[str, Any]) -> tuple[str, str] | None:
    """(task name, output port) of an input that another task feeds, else None."""
    source = entry.get("source")
    return tuple(source.split(":", 1)) if source else None


def plan(steps: list[Step], label: str = "workflow", bare: bool = False, ids: dict[str, str] | None = None) -> Plan:
    """The CWL workflow of a request that was found valid.

    bare: for the engine in this process, to which nothing but statuses come back; ids: task name -> step id, where they
    are given already.
    """
    ids = ids or cwl_ids([step.name for step in steps])
    named = [(step.name, output["name"]) for step in steps for output in step.request["outputs"]]
    named += [source for step in steps for entry in step.request["inputs"] if (source := source_of(entry))]
    for step in steps:
        given = [entry["name"] for entry in step.request["inputs"]]
        step.special = member_definition(step.definition, given, [port for name, port in named if name == step.name])
    ports = {step.name: port_ids(step.special) for step in steps}
    found = Plan({}, {}, {}, {ids[step.name]: step for step in steps})
    inputs: Cwl = {}
    document_steps: Cwl = {}
    for step_id, step in found.steps.items():
        strings = {port["name"] for port in input_ports(step.special) if is_string(port)}
        wiring = {}
        for entry in step.request["inputs"]:
            target = ports[step.name][0][entry["name"]]
            if source := source_of(entry):
                wiring[target] = f"{ids[source[0]]}/{ports[source[0]][1][source[1]]}"
                continue
            wiring[target] = workflow_input = f"{step_id}.{target}"
            if entry["name"] in strings:
                inputs[workflow_input] = {"type": ["string", "boolean"]}
                found.job[workflow_input] = entry["value"]
            else:
                inputs[workflow_input] = {"type": "Directory"}
                found.folders[workflow_input] = (step.name, entry["name"], entry["value"])
        document_steps[step_id] = step_document(step, step_id, wiring, bare)
    found.document = {
        "cwlVersion": "v1.2",
        "class": "Workflow",
        "id": cwl_ids([label])[label],
        "label": label,
        "$namespaces": NAMESPACES,
        "requirements": {"InlineJavascriptRequirement": {}},
        "inputs": inputs,
        "outputs": workflow_outputs(found.steps, document_steps, bare),
        "steps": document_steps,
    }
    return found


def step_document(step: Step, step_id: str, wiring: dict[str, str], bare: bool) -> Cwl:
    """A step: its tool, where its inputs come from, and the condition on the tasks that it waits for."""
    identifier = f"{step_id}-tool"
    run = bare_tool(step, identifier) if bare else run_tool(step, identifier, f"{step_id}.")
    waits = dict.fromkeys(source.partition("/")[0] for source in wiring.values() if "/" in source)
    gates = {f"gbdx.gate_{number}": f"{waited}/{STATUS}" for number, waited in enumerate(waits)}
    ids, _ = port_ids(step.special)
    fed = [ids[port["name"]] for port in input_ports(step.special) if port.get("required")]
    left = [f'inputs["{target}"] != null' for target in fed if "/" in wiring.get(target, "")]
    condition = " && ".join([*(f'inputs["{gate}"] === "success"' for gate in gates), *left])
    return {
        "run": run,
        "in": {target: {"source": source} for target, source in (wiring | gates).items()},
        "out": [*run["outputs"]],
        **({"when": f"$({condition})"} if gates else {}),
    }


def workflow_outputs(steps: dict[str, Step], document_steps: Cwl, bare: bool) -> Cwl:
    """What comes back of each task: its status and logs, its strings, and the directories that are persisted."""
    outputs: Cwl = {}
    for step_id, step in steps.items():
        _, ids = port_ids(step.special)
        persisted = [ids[port["name"]] for port in output_ports(step.special) if port["name"] in step.persisted]
        kept = [STATUS] if bare else [*RESERVED, *persisted]
        for name in kept:
            kinds = document_steps[step_id]["run"]["outputs"][name]["type"]
            optional = kinds if isinstance(kinds, list) else ["null", kinds]
            outputs[f"{step_id}.{name}"] = {"type": optional, "outputSource": f"{step_id}/{name}"}
    return outputs
