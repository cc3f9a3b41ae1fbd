"""cwltool as anybody runs it: its own command, without the platform."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from gbdx_platform import containers


def cwltool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """cwltool's own command."""
    program = Path(sys.executable).with_name("cwltool")
    folder = str(Path(containers.engine()).parent)
    environment = {"PATH": folder, "HOME": "/tmp"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, check=False)


def run(document: dict[str, Any], name: str, inputs: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a document writes to `folder`/out. inputs: paths are directories; name: where a package is entered."""
    job = json.dumps(inputs, default=lambda path: {"class": "Directory", "path": str(path)})
    (folder / "job.json").write_text(job)
    (folder / "document.cwl").write_text(json.dumps(document))
    place = f"{folder / 'document.cwl'}#{name}" if "$graph" in document else folder / "document.cwl"
    ran = cwltool("--outdir", folder / "out", place, folder / "job.json")
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))
