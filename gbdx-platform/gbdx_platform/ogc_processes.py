"""Deploys a definition on another server: OGC API - Processes, part 2 (Deploy, Replace, Undeploy; OGC 20-044).

One POST to <server>/processes, an `ogcapppkg` with the application package as its execution unit.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any
from urllib.parse import urlsplit

import httpx

from gbdx_platform import containers
from gbdx_platform.client import ClientError
from gbdx_platform.cwl_tool import Cwl
from gbdx_platform.export import application_package
from gbdx_platform.registry import checked
from gbdx_platform.settings import LOOPBACK
from gbdx_platform.task_definition import container_properties
from gbdx_platform.workflow_request import RequestError

MEDIA_TYPE, UNIT_TYPE = "application/ogcapppkg+json", "application/cwl+json"
VARIABLE = "GBDX_OGC_TOKEN"
REFUSALS = {
    400: "it finds a fault in the package",
    401: f"it wants a valid token in {VARIABLE}",
    403: "it lets you deploy nothing, or not this process",
    404: "there is no list of processes at this address",
    405: "it deploys nothing: OGC API Processes without part 2",
    409: "it has a process of this name already: undeploy that one first, or deploy under another name",
    415: f"it does not take {MEDIA_TYPE}",
}


def package_of(document: Any) -> Cwl:
    """The package of a definition, or of a file that `export --format eoap` wrote, as it is.

    Raises:
        ClientError: the definition's errors, or what a package can't express.
    """
    if isinstance(document, dict) and "cwlVersion" in document:
        if "s:softwareVersion" not in document:
            raise ClientError("expected a definition, or what `export --format eoap` wrote, found other CWL")
        return document
    try:
        definition = checked(document)
        image = None
        with contextlib.suppress(containers.ImageError):
            image = containers.inspect_image(container_properties(definition)["image"])
        # An image that isn't here is taken to have no entry point; its own command isn't known then.
        own_command = [] if image is None else None if image.entrypoint else image.command
        return application_package(definition, own_command)
    except RequestError as error:
        raise ClientError("\n".join(map(str, error.problems))) from None


def deploy_request(package: Cwl) -> dict[str, Any]:
    """The body of the request: the process, described by the package's workflow, and the package itself."""
    workflow = package["$graph"][0]
    process = {"id": workflow["id"], "version": package["s:softwareVersion"]}
    process |= {"title": workflow["label"], "description": workflow["doc"]}
    return {"processDescription": process, "executionUnit": [{"type": UNIT_TYPE, "unit": package}]}


def deploy(document: Any, server: str) -> str:
    """Deploys a definition or a package on a server; returns where it is now.

    Raises:
        ClientError: no answer, or a refusal, with what the server says.
    """
    body = deploy_request(package_of(document))
    address = server.rstrip("/").removesuffix("/processes") + "/processes"
    headers = {"Content-Type": MEDIA_TYPE, "Accept": "application/json"}
    if token := os.environ.get(VARIABLE):
        if urlsplit(address).scheme != "https" and urlsplit(address).hostname not in LOOPBACK:
            raise ClientError(f"{address}: expected https for the token in {VARIABLE}, found no encryption")
        headers["Authorization"] = f"Bearer {token}"
    try:
        answer = httpx.post(address, json=body, headers=headers, timeout=120)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ClientError(f"{address}: expected an answer, found {error}") from None
    if answer.status_code == 201:
        name = body["processDescription"]["id"]
        return str(httpx.URL(address).join(answer.headers.get("location") or f"processes/{name}"))
    raise ClientError(f"{address}: expected 201, found {answer.status_code}, {refusal(answer)}")


def refusal(answer: httpx.Response) -> str:
    """What an answer means, and the server's own words: `detail` or `title` of an OGC exception, or its text."""
    meaning = REFUSALS.get(
        answer.status_code, "a fault of the server" if answer.is_server_error else "not a deployment"
    )
    try:
        found = answer.json()
        said = found.get("detail") or found.get("title") or found.get("message") or found.get("description")
    except (ValueError, AttributeError):
        said = answer.text
    return f"{meaning}; it says: {str(said)[:300]}" if said else meaning
