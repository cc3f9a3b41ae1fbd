"""Definitions and workflows as documents that stand alone: CWL, and OGC Earth Observation Application Packages.

The package (OGC 20-089) is for servers that refuse `dockerOutputDirectory`: absolute entries below /mnt/work, and a
small `sh` around the command, which brings outputs to the working directory and turns a status of "failed" into an
exit code.
"""

from __future__ import annotations

import shlex
from typing import Any

from gbdx_platform import cwl_tool, cwl_workflow
from gbdx_platform.cwl_tool import (
    GRACE,
    MARGIN,
    NAMESPACES,
    WORK,
    Cwl,
    cwl_ids,
    described,
    input_ports,
    is_string,
    output_parameter,
    output_ports,
    port_ids,
    strings_expression,
    timeout_of,
)
from gbdx_platform.task_definition import Problem, container, container_properties, quoted
from gbdx_platform.workflow_request import RequestError

FORMATS = ("gbdx", "cwl", "eoap")
# Runs "$@" as the task's command, its timeout in $0.
WRAPPER = (
    f'mkdir -p {WORK}/output; timeout -k {GRACE} "$0" "$@"; code=$?; '
    f"cp -R {WORK}/output/. .; cp {WORK}/status.json . 2>/dev/null; "
    'if [ $code = 0 ] && ! grep -qi \'"status"[ ]*:[ ]*"success"\' status.json; then code=1; fi; exit $code'
)
# Servers want to know what a package may use: one core, 2 GiB, as the platform's smallest machines had.
RESOURCES = {"coresMin": 1, "coresMax": 1, "ramMin": 2048, "ramMax": 2048}


def unknown_format(name: str) -> RequestError:
    """The refusal of a format that there is not."""
    return RequestError([Problem("format", "one of " + ", ".join(FORMATS), quoted(name))])


def definition_as(name: str, definition: Cwl, own_command: list[str] | None) -> Cwl:
    """A definition in a format: `gbdx` is itself. own_command: the image's CMD, None when it has an entry point.

    Raises:
        RequestError: no such format.
    """
    if name == "gbdx":
        return definition
    if name == "cwl":
        return cwl_tool.tool(definition, own_command=own_command)
    if name == "eoap":
        return application_package(definition, own_command)
    raise unknown_format(name)


def workflow_as(name: str, label: str, steps: list[cwl_workflow.Step]) -> Cwl:
    """A workflow in a format.

    Raises:
        RequestError: no such format.
    """
    if name != "cwl":
        raise RequestError([Problem("format", "gbdx or cwl for a workflow", quoted(name))])
    for step in steps:
        step.image = container_properties(step.definition)["image"]
    return cwl_workflow.plan(steps, label).document


def application_package(definition: Cwl, own_command: list[str] | None) -> Cwl:
    """A definition as an Earth Observation Application Package: one tool, and the workflow of one step around it."""
    inputs, outputs = port_ids(definition)
    tool = package_tool(definition, own_command)
    name = cwl_ids([definition["name"]])[definition["name"]]
    workflow = {
        "class": "Workflow",
        "id": name,
        "label": definition["name"],
        "doc": definition.get("description") or definition["name"],
        "requirements": {},
        "inputs": {identifier: dict(tool["inputs"][identifier]) for identifier in inputs.values()},
        "outputs": {
            outputs[port["name"]]: {
                "type": tool["outputs"][outputs[port["name"]]]["type"],
                "outputSource": f"task/{outputs[port['name']]}",
                **described(port),
            }
            for port in output_ports(definition)
        },
        "steps": {
            "task": {
                "run": f"#{tool['id']}",
                "in": {identifier: identifier for identifier in inputs.values()},
                "out": list(outputs.values()),
            }
        },
    }
    return {
        "cwlVersion": "v1.2",
        "$namespaces": NAMESPACES,
        "s:softwareVersion": definition.get("version") or "0.0.1",
        "$graph": [workflow, tool],
    }


def package_tool(definition: Cwl, own_command: list[str] | None) -> Cwl:
    """The package's CommandLineTool."""
    inputs, outputs = port_ids(definition)
    command = shlex.split(container(definition).get("command") or "") or own_command or []
    if not command or own_command is None:
        reason = "a command, and an image without an entry point, which the package's wrapper needs"
        raise RequestError([Problem("containerDescriptors[0].command", reason, "another")])
    folders = [port for port in input_ports(definition) if not is_string(port)]
    strings = {port["name"]: inputs[port["name"]] for port in input_ports(definition) if is_string(port)}
    if any(port.get("multiplex") for port in input_ports(definition) + output_ports(definition)):
        raise RequestError([Problem("inputPortDescriptors", "no multiplex port in a package", "one")])
    listing: list[Any] = [
        {"entryname": WORK, "entry": '$({"class": "Directory", "basename": "work", "listing": []})', "writable": True},
        *(
            {"entryname": f"{WORK}/input/{port['name']}", "entry": f'$(inputs["{inputs[port["name"]]}"])'}
            for port in folders
        ),
        {"entryname": f"{WORK}/input/ports.json", "entry": strings_expression(strings)},
    ]
    seconds = timeout_of(definition)
    return {
        "class": "CommandLineTool",
        "id": cwl_ids([definition["name"] + "-tool"])[definition["name"] + "-tool"],
        "label": definition["name"],
        "doc": definition.get("description") or definition["name"],
        "requirements": {
            "DockerRequirement": {"dockerPull": container_properties(definition)["image"]},
            "InitialWorkDirRequirement": {"listing": listing},
            "InlineJavascriptRequirement": {},
            "ResourceRequirement": RESOURCES,
            "ToolTimeLimit": {"timelimit": seconds + MARGIN},
        },
        "baseCommand": ["sh", "-c"],
        "arguments": [{"valueFrom": cwl_tool.escaped(word)} for word in (WRAPPER, str(seconds), *command)],
        "inputs": {inputs[port["name"]]: package_input(port) for port in input_ports(definition)},
        "outputs": {outputs[port["name"]]: package_output(port) for port in output_ports(definition)},
    }


def package_input(port: dict[str, Any]) -> Cwl:
    """An input; strings only, where the platform takes booleans too."""
    kind = "string" if is_string(port) else "Directory"
    return {"type": kind if port.get("required") else f"{kind}?", **described(port)}


def package_output(port: dict[str, Any]) -> Cwl:
    """An output, found in the working directory; required where the platform makes all optional."""
    found = output_parameter(port, port["name"])
    found["outputBinding"]["glob"] = found["outputBinding"]["glob"].removeprefix("output/")
    kind = "string" if is_string(port) else "Directory"
    found["type"] = kind if port.get("required", True) else f"{kind}?"
    return found
