"""Definitions and workflows as documents that stand alone: CWL, and OGC Earth Observation Application Packages."""

from __future__ import annotations

from typing import Any

from gbdx_platform import cwl_tool, cwl_workflow
from gbdx_platform.task_definition import Problem, quoted
from gbdx_platform.workflow_request import RequestError

FORMATS = ("gbdx", "cwl")


def unknown_format(name: str) -> RequestError:
    """The refusal of a format that there is not."""
    return RequestError([Problem("format", "one of " + ", ".join(FORMATS), quoted(name))])


def definition_as(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """A definition in a format: `gbdx` is itself.

    Raises:
        RequestError: no such format.
    """
    if name == "gbdx":
        return definition
    if name == "cwl":
        return cwl_tool.tool(definition, own_command=[])
    raise unknown_format(name)


def workflow_as(name: str, label: str, steps: list[cwl_workflow.Step]) -> dict[str, Any]:
    """A workflow in a format.

    Raises:
        RequestError: no such format.
    """
    if name == "cwl":
        for step in steps:
            step.image = cwl_tool.container_properties(step.definition)["image"]
        return cwl_workflow.plan(steps, label).document
    raise unknown_format(name)
