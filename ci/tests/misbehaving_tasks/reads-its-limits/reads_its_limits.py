"""Well behaved: writes down what the container grants it."""

import json
from pathlib import Path

work = Path("/mnt/work")
output = work / "output" / "data_out"
output.mkdir()
status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
(Path.home() / "scratch").write_text("fits")
memory_limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
facts = {
    "status": {name: status[name].split() for name in ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs")},
    "home": str(Path.home()),
    "root": [line.split()[3].split(",")[0] for line in Path("/proc/mounts").read_text().splitlines() if " / " in line],
    "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
    "inputs": sorted(str(path.relative_to(work)) for path in (work / "input").rglob("*")),
    "ports": json.loads((work / "input" / "ports.json").read_text()),
    "memory": [int(path.read_text()) for path in memory_limits if path.exists()],
}
(output / "facts.json").write_text(json.dumps(facts))
(work / "status.json").write_text('{"status": "success"}')
