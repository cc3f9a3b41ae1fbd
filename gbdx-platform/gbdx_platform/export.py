"""Definitions and workflows as documents that stand alone: CWL, and OGC Earth Observation Application Packages.

The package (OGC 20-089) is for servers that refuse `dockerOutputDirectory`: absolute entries below /mnt/work, and a
small `sh` around the command, which brings outputs to the working directory and turns a status of "failed" into an
exit code. So a failed task fails the workflow there, where the platform's own CWL goes on with what does not need it.
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
    output_ports,
    port_ids,
)
from gbdx_platform.cwl_workflow import Plan, Step
from gbdx_platform.registry import FIRST_VERSION
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
        RequestError: no such format, or a definition that it can't express.
    """
    if name == "gbdx":
        return definition
    if name == "cwl":
        return cwl_tool.tool(definition, own_command=own_command)
    if name == "eoap":
        return application_package(definition, own_command)
    raise unknown_format(name)


def workflow_as(name: str, label: str, steps: list[Step]) -> Cwl:
    """A workflow in a format; the strings that it was launched with are defaults, its directories are asked for.

    Raises:
        RequestError: no such format, or a task that it can't express.
    """
    if name not in FORMATS:
        raise unknown_format(name)
    for step in steps:
        step.image = container_properties(step.definition)["image"]
    plan = cwl_workflow.plan(steps, label)
    for identifier, value in plan.job.items():
        plan.document["inputs"][identifier]["default"] = value
    return workflow_package(plan) if name == "eoap" else plan.document


def package(workflow: Cwl, tools: list[Cwl], version: str) -> Cwl:
    """The document of a package: what a server lists first, then the tools that it runs."""
    return {"cwlVersion": "v1.2", "$namespaces": NAMESPACES, "s:softwareVersion": version, "$graph": [workflow, *tools]}


def application_package(definition: Cwl, own_command: list[str] | None) -> Cwl:
    """A definition as an Earth Observation Application Package: one tool, and the workflow of one step around it."""
    name, image = definition["name"], container_properties(definition)["image"]
    identifier, tool_id = cwl_ids([name, f"{name}-tool"]).values()
    step = Step(name, definition, {}, image, cwl_tool.timeout_of(definition), "", own_command, definition)
    tool = package_tool(step, tool_id)
    # A workflow's inputs, outputs and steps may not share names, and a port may be called `task`.
    step_id = cwl_ids(["task"], (*tool["inputs"], *tool["outputs"]))["task"]
    outputs = {
        port: {key: about[key] for key in ("type", "label", "doc")} | {"outputSource": f"{step_id}/{port}"}
        for port, about in tool["outputs"].items()
    }
    workflow = {
        "class": "Workflow",
        "id": identifier,
        "label": name,
        "doc": tool["doc"],
        "inputs": tool["inputs"],
        "outputs": outputs,
        "steps": {step_id: {"run": f"#{tool_id}", "in": {port: port for port in tool["inputs"]}, "out": [*outputs]}},
    }
    return package(workflow, [tool], definition.get("version") or FIRST_VERSION)


def workflow_package(plan: Plan) -> Cwl:
    """A workflow's plan as an Earth Observation Application Package; out come what is persisted, and all strings."""
    workflow = {key: plan.document[key] for key in ("class", "id", "label", "inputs", "steps")}
    workflow |= {"doc": f"The workflow {workflow['label']}.", "outputs": {}}
    ids = cwl_ids([f"{step}-tool" for step in plan.steps], (workflow["id"],))
    tools = []
    for step_id, step in plan.steps.items():
        tool = package_tool(step, ids[f"{step_id}-tool"], f"{step_id}.")
        tools.append(tool)
        wiring = {port: source for port, source in workflow["steps"][step_id]["in"].items() if port in tool["inputs"]}
        workflow["steps"][step_id] = {"run": f"#{tool['id']}", "in": wiring, "out": [*tool["outputs"]]}
        workflow["outputs"] |= workflow_outputs(step_id, step, tool)
        for port, source in wiring.items():
            if source["source"] in workflow["inputs"]:
                workflow["inputs"][source["source"]] |= workflow_input(
                    step, tool["inputs"][port], source["source"], plan
                )
    return package(workflow, tools, FIRST_VERSION)


def workflow_input(step: Step, port: Cwl, identifier: str, plan: Plan) -> Cwl:
    """An input of a workflow's package: the port that it feeds, and what the request had there."""
    given = plan.folders[identifier][2] if identifier in plan.folders else plan.job[identifier]
    kind = "Directory" if identifier in plan.folders else "boolean" if isinstance(given, bool) else "string"
    return {"type": kind, "label": f"{step.name}: {port['label']}", "doc": f"{port['doc']} When launched: {given}"}


def workflow_outputs(step_id: str, step: Step, tool: Cwl) -> Cwl:
    """What comes out of a step: directories that the request persists, and strings."""
    persisted = {output["name"] for output in step.request.get("outputs") or [] if output.get("persist")}
    _, ids = port_ids(step.special)
    ports = [port for port in output_ports(step.special) if is_string(port) or port["name"] in persisted]
    return {
        f"{step_id}.{ids[port['name']]}": {
            "type": tool["outputs"][ids[port["name"]]]["type"],
            "outputSource": f"{step_id}/{ids[port['name']]}",
            "label": f"{step.name}: {port['name']}",
            "doc": described(port)["doc"],
        }
        for port in ports
    }


def package_tool(step: Step, identifier: str, prefix: str = "") -> Cwl:
    """A package's CommandLineTool. prefix: stands before the names of outputs; those of two steps may not collide.

    Raises:
        RequestError: an image with an entry point, or no command at all.
    """
    definition = step.special
    inputs, outputs = port_ids(definition)
    command = shlex.split(container(definition).get("command") or "") or step.own_command
    if step.own_command is None or not command:
        expected = "a command, and an image without ENTRYPOINT: in a package the command has a shell around it"
        found = "no command" if step.own_command == [] else f"an entry point in {step.image}, which CWL can't replace"
        raise RequestError([Problem("containerDescriptors[0]", expected, found)])
    work = {
        "entryname": WORK,
        "entry": '$({"class": "Directory", "basename": "work", "listing": []})',
        "writable": True,
    }
    return {
        "class": "CommandLineTool",
        "id": identifier,
        "label": definition["name"],
        "doc": definition.get("description") or definition["name"],
        "requirements": {
            "DockerRequirement": {"dockerPull": step.image},
            "InitialWorkDirRequirement": {"listing": [work, *cwl_tool.input_entries(definition, f"{WORK}/")]},
            "InlineJavascriptRequirement": {},
            "ResourceRequirement": RESOURCES,
            "ToolTimeLimit": {"timelimit": step.timeout + MARGIN},
        },
        "hints": cwl_tool.CUDA if cwl_tool.wants_gpu(definition, step.domain) else {},
        "baseCommand": ["sh", "-c"],
        "arguments": [{"valueFrom": cwl_tool.escaped(word)} for word in (WRAPPER, str(step.timeout), *command)],
        "inputs": {inputs[port["name"]]: package_input(port) for port in input_ports(definition)},
        "outputs": {outputs[port["name"]]: package_output(port, prefix) for port in output_ports(definition)},
    }


def package_input(port: dict[str, Any]) -> Cwl:
    """An input; strings only, where the platform takes booleans too."""
    required = bool(port.get("required"))
    missing: Cwl = {"default": []} if port.get("multiplex") and not required else {}
    return {"type": package_type(port, required), **missing, **described(port)}


def package_output(port: dict[str, Any], prefix: str) -> Cwl:
    """An output, found in the working directory; required where the platform makes all optional."""
    found = cwl_tool.output_parameter(port, prefix + port["name"], ("string",))
    found["outputBinding"]["glob"] = found["outputBinding"]["glob"].removeprefix("output/")
    return found | {"type": package_type(port, bool(port.get("required", True)))}


def package_type(port: dict[str, Any], required: bool) -> str:
    """The type of a port in CWL's short form; lists are empty rather than missing, as the validator wants them."""
    kind = "string" if is_string(port) else "Directory"
    return f"{kind}[]" if port.get("multiplex") else kind if required else f"{kind}?"
