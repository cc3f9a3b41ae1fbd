"""Definitions and workflows as documents that stand alone: CWL, and OGC Earth Observation Application Packages.

The package (OGC 20-089) is for servers that refuse `dockerOutputDirectory`: absolute entries below /mnt/work, and a
small `sh` around the command, which brings outputs to the working directory and turns a status of "failed" into an
exit code. So a failed task fails the workflow there, where the platform's own CWL goes on with what does not need it.
"""

from __future__ import annotations

from typing import Any

from gbdx_platform import cwl_tool, cwl_workflow
from gbdx_platform.cwl_tool import (
    GRACE,
    NAMESPACES,
    WORK,
    Cwl,
    Step,
    cwl_ids,
    described,
    input_ports,
    is_string,
    output_ports,
    port_ids,
)
from gbdx_platform.cwl_workflow import Plan
from gbdx_platform.registry import FIRST_VERSION
from gbdx_platform.task_definition import Problem, container_properties, quoted
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


def check_format(name: str) -> None:
    """Refuses a format that there is not."""
    if name not in FORMATS:
        raise RequestError([Problem("format", "one of " + ", ".join(FORMATS), quoted(name))])


def definition_as(name: str, definition: Cwl, own_command: list[str] | None) -> Cwl:
    """A definition in a format: `gbdx` is itself. own_command: the image's CMD, None when it has an entry point.

    Raises:
        RequestError: no such format, or a definition that it can't express.
    """
    check_format(name)
    if name == "eoap":
        return application_package(definition, own_command)
    return cwl_tool.tool(definition, own_command) if name == "cwl" else definition


def workflow_as(name: str, label: str, steps: list[Step]) -> Cwl:
    """A workflow in a format; the strings that it was launched with are defaults, its directories are asked for.

    Raises:
        RequestError: no such format, or a task that it can't express.
    """
    check_format(name)
    for step in steps:
        step.image = container_properties(step.definition)["image"]
    plan = cwl_workflow.plan(steps, label)
    if name == "eoap":
        return workflow_package(plan)
    for identifier, value in plan.job.items():
        plan.document["inputs"][identifier]["default"] = value
    return plan.document


def package(workflow: Cwl, tools: list[Cwl], version: str) -> Cwl:
    """The document of a package: what a server lists first, then the tools that it runs."""
    return {"cwlVersion": "v1.2", "$namespaces": NAMESPACES, "s:softwareVersion": version, "$graph": [workflow, *tools]}


def application_package(definition: Cwl, own_command: list[str] | None) -> Cwl:
    """A definition as an Earth Observation Application Package: one tool, and the workflow of one step around it."""
    name = definition["name"]
    identifier, tool_id = cwl_ids([name, f"{name}-tool"]).values()
    tool = package_tool(cwl_tool.alone(definition, own_command), tool_id)
    # A workflow's inputs, outputs and steps may not share names, and a port may be called `task`.
    step_id = cwl_ids(["task"], (*tool["inputs"], *tool["outputs"]))["task"]
    outputs = {port: exposed(step_id, port, tool) for port in tool["outputs"]}
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
    workflow = {key: plan.document[key] for key in ("class", "id", "label")}
    ids = cwl_ids([f"{step_id}-tool" for step_id in plan.steps], (workflow["id"],))
    tools = {step_id: package_tool(step, ids[f"{step_id}-tool"], f"{step_id}.") for step_id, step in plan.steps.items()}
    steps = {}
    for step_id, tool in tools.items():
        wiring = plan.document["steps"][step_id]["in"]
        sources = {port: wiring[port] for port in tool["inputs"] if port in wiring}
        steps[step_id] = {"run": f"#{tool['id']}", "in": sources, "out": [*tool["outputs"]]}
    workflow |= {"doc": f"The workflow {workflow['label']}.", "steps": steps}
    workflow |= {"inputs": workflow_inputs(plan, tools), "outputs": workflow_outputs(plan, tools)}
    return package(workflow, [*tools.values()], FIRST_VERSION)


def workflow_inputs(plan: Plan, tools: Cwl) -> Cwl:
    """The inputs of a workflow: the ports that they feed, and what the request had there. tools: step id -> tool."""
    inputs: Cwl = {}
    for name, given in (plan.job | {name: url for name, (_, _, url) in plan.folders.items()}).items():
        step_id, _, port = name.partition(".")
        about = tools[step_id]["inputs"][port]
        # As gbdxtools writes a boolean; a package's ports take none.
        text = given if isinstance(given, str) else str(given).lower()
        inputs[name] = {
            "type": about["type"].removesuffix("?"),
            "label": f"{plan.steps[step_id].name}: {about['label']}",
            "doc": f"{about['doc']} When launched: {text}",
            **({"default": text} if name in plan.job else {}),
        }
    return inputs


def workflow_outputs(plan: Plan, tools: Cwl) -> Cwl:
    """What comes out of the steps: directories that the request persists, and strings. tools: step id -> tool."""
    found = {}
    for step_id, step in plan.steps.items():
        _, ids = port_ids(step.special)
        for port in output_ports(step.special):
            if is_string(port) or port["name"] in step.persisted:
                name = ids[port["name"]]
                found[f"{step_id}.{name}"] = exposed(step_id, name, tools[step_id], f"{step.name}: ")
    return found


def exposed(step_id: str, name: str, tool: Cwl, before: str = "") -> Cwl:
    """An output of a step as one of its workflow. before: stands before its label."""
    about = tool["outputs"][name]
    return {
        "type": about["type"],
        "outputSource": f"{step_id}/{name}",
        "label": before + about["label"],
        "doc": about["doc"],
    }


def package_tool(step: Step, identifier: str, prefix: str = "") -> Cwl:
    """A package's CommandLineTool. prefix: stands before the names of outputs; those of two steps may not collide.

    Raises:
        RequestError: an image with an entry point, or no command at all.
    """
    command = cwl_tool.command_of(step)
    if step.own_command is None or not command:
        expected = "a command, and an image without ENTRYPOINT: in a package the command has a shell around it"
        found = "no command" if step.own_command == [] else f"an entry point in {step.image}, which CWL can't replace"
        raise RequestError([Problem("containerDescriptors[0]", expected, found)])
    inputs, outputs = port_ids(step.special)
    listing = [cwl_tool.empty_folder(WORK), *cwl_tool.input_entries(step.special, f"{WORK}/")]
    tool = cwl_tool.skeleton(step, identifier, listing, ["sh", "-c", WRAPPER, str(step.timeout), *command])
    tool["requirements"]["ResourceRequirement"] = RESOURCES
    return tool | {
        "hints": cwl_tool.gpu_hint(step),
        "inputs": {inputs[port["name"]]: package_input(port) for port in input_ports(step.special)},
        "outputs": {outputs[port["name"]]: package_output(port, prefix) for port in output_ports(step.special)},
    }


def package_input(port: dict[str, Any]) -> Cwl:
    """An input; strings only, where the platform takes booleans too."""
    required = bool(port.get("required"))
    missing: Cwl = {"default": []} if port.get("multiplex") and not required else {}
    return {"type": package_type(port, required), **missing, **described(port)}


def package_output(port: dict[str, Any], prefix: str) -> Cwl:
    """An output, found in the working directory; required where the platform makes all optional."""
    found = cwl_tool.output_parameter(port, prefix, ("string",))
    found["outputBinding"]["glob"] = found["outputBinding"]["glob"].removeprefix("output/")
    return found | {"type": package_type(port, bool(port.get("required", True)))}


def package_type(port: dict[str, Any], required: bool) -> str:
    """The type of a port in CWL's short form; lists are empty rather than missing, as the validator wants them."""
    kind = "string" if is_string(port) else "Directory"
    return f"{kind}[]" if port.get("multiplex") else kind if required else f"{kind}?"
