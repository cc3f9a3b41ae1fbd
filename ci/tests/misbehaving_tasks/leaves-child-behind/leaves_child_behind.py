"""Succeeds while a child of its own session still sleeps."""

import subprocess
from pathlib import Path

work = Path("/mnt/work")
subprocess.Popen(["sleep", "3611"], start_new_session=True)
(work / "status.json").write_text('{"status": "success"}')
