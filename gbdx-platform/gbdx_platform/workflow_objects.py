"""Rows of the database as the objects of the HTTP interface, and requests as rows."""

from __future__ import annotations

from typing import Any

from gbdx_platform.cwl_tool import WORK, input_ports, is_string, output_ports, timeout_of
from gbdx_platform.database import Row, new_id, now, timestamp
from gbdx_platform.task_definition import container, container_properties, split_image
from gbdx_platform.task_verdict import owner_of


def new_workflow(
    request: dict[str, Any], owner: str, registry: dict[str, Row], batch: str | None = None
) -> tuple[Row, list[Row]]:
    """The rows of a workflow that was found valid."""
    workflow = {
        "id": new_id(), "owner": owner, "name": request["name"], "state": "pending", "event": "submitted",
        "submitted": now(), "completed": None, "callback": request.get("callback"), "called_back": False,
        "canceling": False, "batch": batch,
    }  # fmt: skip
    tasks = [
        new_task(workflow["id"], position, task, registry[task["taskType"]])
        for position, task in enumerate(request["tasks"])
    ]
    return workflow, tasks


def new_task(workflow: str, position: int, request: dict[str, Any], row: Row) -> Row:
    """A task's row; its body holds the definition and the image that it is bound to from now on."""
    definition = row["definition"]
    inputs = input_ports(definition)
    descriptors = request.get("containerDescriptors") or [{}]
    domain = (descriptors[0].get("properties") or {}).get("domain") or container_properties(definition).get("domain")
    body = {
        "definition": definition,
        "request": request,
        "image_id": row["image_id"],
        "entrypoint": row["entrypoint"],
        "command": row["command"],
        "domain": domain or "default",
        "task_type": f"{definition['name']}:{row['version']}",
        "inputs": [port_object(owner_of(entry["name"], inputs) or {}, entry) for entry in request["inputs"]],
        "outputs": output_objects(workflow, request, definition),
    }
    return {
        "id": new_id(), "workflow": workflow, "position": position, "name": request["name"], "state": "pending",
        "event": "submitted", "note": "", "started": None, "container": None, "body": body,
    }  # fmt: skip


def port_object(port: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """A port of a task as clients see it; entry: what the request says of it."""
    kind = "string" if is_string(port) else "directory"
    given = {"value": entry.get("value"), "source": entry.get("source")}
    return {"name": entry["name"], "type": kind, **given, "dataflow_channel": None}


def output_objects(workflow: str, request: dict[str, Any], definition: Row) -> list[dict[str, Any]]:
    """The outputs that a task's request names, then the declared strings, whose values clients read."""
    ports, asked = output_ports(definition), {entry["name"]: entry for entry in request["outputs"]}
    strings = [port["name"] for port in ports if is_string(port) and not port.get("multiplex")]
    found = []
    for name in dict.fromkeys([*asked, *strings]):
        entry, place = asked.get(name, {"name": name}), None
        if entry.get("persist"):
            place = (entry.get("persistLocation") or f"workflow_output/{workflow}/{request['name']}/{name}").strip("/")
        found.append({**port_object(owner_of(name, ports) or {}, entry), "persistLocation": place})
    return found


def task_object(row: Row) -> dict[str, Any]:
    """A workflow's task as clients see it."""
    body = row["body"]
    definition, request = body["definition"], body["request"]
    path, tag, digest = split_image(container_properties(definition)["image"])
    mounts = [{"local": None, "container": WORK, "read_only": False}] + [
        {"local": None, "container": f"{WORK}/input/{entry['name']}", "read_only": True}
        for entry in body["inputs"]
        if entry["type"] == "directory"
    ]
    return {
        "id": row["id"],
        "name": row["name"],
        "taskType": body["task_type"],
        "note": row["note"],
        "callback": None,
        "start_time": timestamp(row["started"]),
        "timeout": request.get("timeout") or timeout_of(definition),
        "state": {"state": row["state"], "event": row["event"]},
        "instance_info": {"domain": body["domain"], "instance_id": row["container"]},
        "inputs": body["inputs"],
        "outputs": body["outputs"],
        "run_parameters": {
            "image": path,
            "tag": tag or digest or "latest",
            "command": container(definition).get("command") or "",
            "devices": [],
            "mounts": mounts,
            "subject_type": None,
            "subject_id": None,
        },
    }


def workflow_object(row: Row, tasks: list[Row]) -> dict[str, Any]:
    """A workflow as clients see it."""
    return {
        "id": row["id"],
        "name": row["name"],
        "owner": row["owner"],
        "state": {"state": row["state"], "event": row["event"]},
        "submitted_time": timestamp(row["submitted"]),
        "completed_time": timestamp(row["completed"]),
        "callback": row["callback"],
        "tasks": [task_object(task) for task in tasks],
    }
