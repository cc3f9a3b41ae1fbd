"""`register --ogc` against a small server of OGC API Processes, part 2; no published one can be installed here."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ap_validator.app_package import AppPackage
from gbdx_platform.client import ClientError
from gbdx_platform.local_s3 import free_ports
from gbdx_platform.ogc_processes import deploy
from live_service import ROOT, Service, Session

HELLO = ROOT / "hello-gbdx" / "hello-gbdx_definition.json"
# The standard's ogcapppkg.yaml with processSummary.yaml, executionUnit.yaml, link.yaml and qualifiedValue.yaml, as far
# as they demand something: an execution unit has to be one of them and no other.
UNIT = {
    "oneOf": [
        {"type": "object", "properties": {"config": {"type": "object"}}},
        {"type": "object", "required": ["href"]},
        {"type": "object", "required": ["value"]},
    ]
}
PROCESS = {
    "type": "object",
    "required": ["id", "version"],
    "properties": {name: {"type": "string"} for name in ("id", "version", "title", "description")},
}
APPLICATION_PACKAGE = {
    "type": "object",
    "required": ["executionUnit"],
    "properties": {"processDescription": PROCESS, "executionUnit": {"type": "array", "items": UNIT}},
}


class Processes(BaseHTTPRequestHandler):
    """POST /ogc/processes as the standard has it: 201 with a Location, 409 for a duplicate, exceptions as JSON."""

    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if server.canned:
            return self.answer(*server.canned)
        if self.path != "/ogc/processes":
            return self.answer(404, {"title": "NoSuchResource"})
        if self.headers.get("Authorization") != "Bearer a-token-of-theirs":
            return self.answer(401, {"title": "Unauthorized"})
        if self.headers["Content-Type"] != "application/ogcapppkg+json":
            return self.answer(415, {"title": "UnsupportedMediaType"})
        asked = json.loads(body)
        jsonschema.validate(asked, APPLICATION_PACKAGE)
        name, [unit] = asked["processDescription"]["id"], asked["executionUnit"]
        if name in server.deployed:
            return self.answer(409, {"title": "DuplicatedProcess", "detail": f"{name} is deployed already"})
        server.deployed[name] = unit
        return self.answer(201, {"id": name}, {"Location": f"/ogc/processes/{name}"})

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Sends JSON, or a text as it is."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def processes() -> Iterator[Any]:
    """The server; `deployed` holds what it took, `canned` an answer to give whatever is asked."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Processes)
    server.deployed, server.canned = {}, None
    server.url = f"http://127.0.0.1:{server.server_port}/ogc"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def register(folder: Path, file: Path, url: str, token: str = "a-token-of-theirs") -> tuple[int, str]:
    """The exit code of `register --ogc`, and what it says; no service of the platform runs."""
    done = Service(folder, GBDX_OGC_TOKEN=token).command("register", str(file), "--ogc", url, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


def test_a_definition_is_deployed_as_a_compliant_package_and_once_only(processes: Any, tmp_path: Path) -> None:
    assert register(tmp_path, HELLO, processes.url) == (0, f"{processes.url}/processes/hello-gbdx")
    unit = processes.deployed["hello-gbdx"]
    assert unit["type"] == "application/cwl+json"
    assert AppPackage(unit["unit"], "hello-gbdx").check_all()["issues"] == []
    code, said = register(tmp_path, HELLO, f"{processes.url}/processes/")
    assert (code, said) == (
        2,
        f"{processes.url}/processes: expected 201, found 409, it has a process of this name already: undeploy that one "
        "first, or deploy under another name; it says: hello-gbdx is deployed already",
    )


def test_an_exported_package_is_deployed_as_it_is(
    processes: Any, service: Service, session: Session, hello: str, tmp_path: Path
) -> None:
    package = service.command("export", hello, "--format", "eoap").stdout
    (tmp_path / "package.cwl").write_text(package)
    assert register(tmp_path, tmp_path / "package.cwl", processes.url)[0] == 0
    assert processes.deployed["hello-gbdx"]["unit"] == json.loads(package)


def test_a_task_exported_as_cwl_is_registered_again_as_it_was(
    service: Service, session: Session, hello: str, tmp_path: Path
) -> None:
    tool = json.loads(service.command("export", hello, "--format", "cwl").stdout)
    definition = json.loads(service.command("describe", hello).stdout)
    again = {**definition, "version": "0.2.0"}
    (tmp_path / "tool.cwl").write_text(json.dumps({**tool, "gbdx:definition": json.dumps(again)}))
    service.command("register", str(tmp_path / "tool.cwl"))
    assert json.loads(service.command("describe", f"{hello}:0.2.0").stdout) == again
    service.command("delete", f"{hello}:0.2.0")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"detail": "no CWL"}, "it finds a fault in the package; it says: no CWL"),
        (403, {"title": "ImmutableProcess"}, "it lets you deploy nothing, or not this process; it says: Immutable"),
        (405, "", "it deploys nothing: OGC API Processes without part 2"),
        (415, [], "it does not take application/ogcapppkg+json; it says: []"),
        (500, "<html>oh</html>", "a fault of the server; it says: <html>oh</html>"),
        (302, "", "not a deployment"),
    ],
)
def test_a_refusal_is_a_sentence_with_the_servers_own_words(processes: Any, status: int, body: Any, said: str) -> None:
    processes.canned = (status, body)
    expected = f"{processes.url}/processes: expected 201, found {status}, {said}"
    with pytest.raises(ClientError, match=re.escape(expected)):
        deploy(json.loads(HELLO.read_text("utf-8")), processes.url)


def test_a_missing_token_an_address_of_nothing_and_plain_http_elsewhere_are_said(
    processes: Any, tmp_path: Path
) -> None:
    assert "found 401, it wants a valid token in GBDX_OGC_TOKEN" in register(tmp_path, HELLO, processes.url, "")[1]
    assert "found 404, there is no list of processes" in register(tmp_path, HELLO, f"{processes.url}/else")[1]
    nowhere = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert register(tmp_path, HELLO, nowhere)[1].startswith(f"{nowhere}/processes: expected an answer, found ")
    refused = "http://ogc.example.com/processes: expected https for the token in GBDX_OGC_TOKEN, found no encryption"
    assert register(tmp_path, HELLO, "http://ogc.example.com") == (2, refused)


def test_a_wrong_definition_gets_all_its_errors_and_nothing_is_sent(processes: Any, tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text('{"name": "a b"}')
    code, said = register(tmp_path, tmp_path / "wrong.json", processes.url)
    assert (code, len(said.splitlines())) == (2, 3)
    (tmp_path / "other.cwl").write_text('{"cwlVersion": "v1.2", "class": "Workflow"}')
    assert (
        "or what `export --format eoap` wrote, found other CWL"
        in register(tmp_path, tmp_path / "other.cwl", processes.url)[1]
    )
    assert processes.deployed == {}
