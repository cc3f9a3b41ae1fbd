"""Schemathesis asks every operation that the service describes for sense and nonsense, the same at each run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from live_service import Service, Session, definition, port, script, task


def test_no_request_of_schemathesis_meets_a_fault_of_the_service(
    service: Service, session: Session, fresh: str, tmp_path: Path
) -> None:
    session.register(definition(fresh, [port("a", "string", required=False)], [], script("")))
    found = session.run(task("one", fresh))
    # What is there already, so that not every answer is a 404.
    real = {"task_type": fresh, "workflow": found["id"], "task": found["tasks"][0]["id"], "stream": "stdout"}
    settings = tmp_path / "schemathesis.toml"
    settings.write_text("[parameters]\n" + "".join(f'"path.{key}" = "{value}"\n' for key, value in real.items()))
    client = service.client()
    token = client.headers["Authorization"]
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", settings),
            *("run", f"{client.base_url}/openapi.json", "--header", f"Authorization: {token}"),
            *("--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--max-examples", "8"),
            *("--generation-deterministic", "--warnings", "off", "--no-color"),
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted, done.stdout
    assert int(counted[1]) == int(counted[2]) >= 500
