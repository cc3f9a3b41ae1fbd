"""The engine Toil on one machine: the states, notes, strings and files that cwltool in the service gives. A minute; not
collected by default, as it needs Toil (gbdx-platform/install.sh --toil):

    gbdx-platform/.venv/bin/python -m pytest gbdx-platform/tests/check_toil.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from live_service import API, IMAGE, ROOT, Service, Session, definition, port, script, task


def outcome(state: Path, *options: str) -> dict[str, Any]:
    """What one engine makes of a workflow with a chain, a failure, a timeout and strings."""
    service = Service(state, *options)
    service.start()
    try:
        session = Session(service.client())
        hello = json.loads((ROOT / "hello-gbdx" / "hello-gbdx_definition.json").read_text("utf-8"))
        hello["containerDescriptors"][0]["properties"]["image"] = IMAGE
        session.register(hello)
        optional = [port("a", "string", required=False)]
        fail = "print('said'); status = 'failed'; reason = 'no bands'"
        session.register(definition("fails", optional, [port("out")], script(fail)))
        session.register(definition("forgets", optional, [port("out")], script("")))
        session.register(definition("slow", optional, [port("out")], script("time.sleep(60)")))
        session.register(
            definition("strings", [port("a", "string")], [port("b", "string")], script("strings['b'] = 'B'"))
        )
        data = session.put("in/a.txt")
        found = session.run(
            task("first", "hello-gbdx", {"data_in": data}),
            task("second", "hello-gbdx", {"data_in": ("first:data_out",), "message": "m"}, {"data_out": "out"}),
            task("bad", "fails"),
            task("after", "hello-gbdx", {"data_in": ("bad:out",)}),
            task("forgetful", "forgets"),
            task("late", "slow", timeout=2),
            task("s1", "strings", {"a": "x"}),
            task("s2", "strings", {"a": ("s1:b",)}),
        )
        log = session.http.get(f"{API}/workflows/{found['id']}/tasks/bad/stdout").text
        return {
            "states": {one["name"]: one["state"] for one in found["tasks"]},
            # Which output is missing, Toil does not tell.
            "notes": {one["name"]: one["note"].split(": ")[0] for one in found["tasks"]},
            "strings": [output["value"] for one in found["tasks"] for output in one["outputs"]],
            "files": {name: session.text(f"out/{name}") for name in session.names("out")},
            "log": log,
        }
    finally:
        service.stop()


def test_toil_and_cwltool_come_to_the_same(hello_image: str, tmp_path: Path) -> None:
    (tmp_path / "cwltool").mkdir()
    (tmp_path / "toil").mkdir()
    ours, toils = outcome(tmp_path / "cwltool"), outcome(tmp_path / "toil", "--engine", "toil")
    assert ours["files"] == {"out.txt": "out.txt\nm"}
    assert ours == toils
