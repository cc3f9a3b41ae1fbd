"""Schemathesis asks every operation that the service describes for sense and nonsense, the same at each run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from live_service import API, Service, Session, definition, port, script, task


def there(session: Session, name: str) -> dict[str, str]:
    """Values of the addresses' parts that are there, so that not every answer is a 404."""
    session.register(definition(name, [port("a", "string", required=False)], [], script("")))
    found = session.run(task("one", name))
    request = {"name": "batch", "tasks": [task("one", name, {"a": "{{n}}"})]}
    request["batch_values"] = [{"name": "n", "values": ["x", "y"]}]
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()["batch_workflow_id"]
    of_workflow = {"workflow": found["id"], "task": found["tasks"][0]["id"], "stream": "stdout"}
    return {"task_type": name, "batch": batch, **of_workflow}


@pytest.mark.parametrize(
    ("service", "pinned", "phases", "least"),
    [(None, True, "coverage,fuzzing", 500), ("postgresql", False, "fuzzing", 100)],
    ids=["of what is there", "of anything, with postgresql"],
    indirect=["service"],
)
def test_no_request_of_schemathesis_meets_a_fault_of_the_service(
    service: Service, session: Session, fresh: str, tmp_path: Path, pinned: bool, phases: str, least: int
) -> None:
    parts = there(session, fresh) if pinned else {}
    settings = tmp_path / "schemathesis.toml"
    settings.write_text("[parameters]\n" + "".join(f'"path.{key}" = "{value}"\n' for key, value in parts.items()))
    client = service.client()
    token = client.headers["Authorization"]
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", settings),
            *("run", f"{client.base_url}/openapi.json", "--header", f"Authorization: {token}"),
            *("--checks", "not_a_server_error", "--phases", phases, "--max-examples", "8"),
            *("--generation-deterministic", "--warnings", "off", "--no-color"),
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted, done.stdout
    assert int(counted[1]) == int(counted[2]) >= least
