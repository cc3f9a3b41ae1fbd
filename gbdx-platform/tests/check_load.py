"""200 workflows at once complete, and what they cost; side by side with a plain loop of the engine. Minutes; not
collected by default:

    python -m pytest -s gbdx-platform/tests/check_load.py        (WORKFLOWS=200)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from pathlib import Path

from gbdx_platform import containers
from live_service import API, IMAGE, Service, Session, definition, port, script, task


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


def plain_loop(number: int, folder: Path) -> float:
    """Seconds of `xargs -P 2` over the same container, started with the same options."""
    options = containers.run_options("NAME", "bench", [], False)
    options[options.index("--name") : options.index("--name") + 2] = ["--rm"]
    line = [*options, IMAGE, "python", "-c", "pass"]
    begun = time.monotonic()
    subprocess.run(
        ["xargs", "-P", "2", "-I", "{}", *line], input="\n".join(map(str, range(number))), text=True, check=True
    )
    return time.monotonic() - begun


def test_many_workflows_at_once_complete_in_bounded_memory(hello_image: str, tmp_path: Path) -> None:
    number = int(os.environ.get("WORKFLOWS", "200"))
    service = Service(tmp_path)
    begun = time.monotonic()
    service.start()
    started = time.monotonic() - begun
    session = Session(service.client())
    session.register(definition("quick", [port("a", "string")], [], script("")))
    session.run(task("warm", "quick", {"a": "x"}))
    assert service.process is not None
    idle = memory(service.process.pid)
    single = []
    for _ in range(5):
        begun = time.monotonic()
        session.run(task("one", "quick", {"a": "x"}))
        single.append(time.monotonic() - begun)
    lists = [{"name": "n", "values": [str(index) for index in range(number)]}]
    request = {"name": "many", "tasks": [task("quick", "quick", {"a": "{{n}}"})], "batch_values": lists}
    begun = time.monotonic()
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()["batch_workflow_id"]
    peak = 0
    while True:
        states = [one["state"] for one in session.http.get(f"{API}/batch_workflows/{batch}").json()["workflows"]]
        peak = max(peak, memory(service.process.pid))
        if not {"pending", "running"} & set(states):
            break
        time.sleep(0.5)
    seconds = time.monotonic() - begun
    bare = plain_loop(number, tmp_path)
    service.stop()
    print(f"\nstart with S3 {started:.1f} s; one workflow {statistics.median(single):.2f} s")
    print(f"{number} workflows {seconds:.0f} s, plain loop {bare:.0f} s, ratio {seconds / bare:.2f}")
    print(f"memory idle {idle >> 20} MB, peak {peak >> 20} MB")
    assert states == ["succeeded"] * number
    assert peak < idle + 300 * 2**20
