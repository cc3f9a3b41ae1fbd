"""Leaves a link to a file of the host as its string outputs."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "ports.json").symlink_to("/etc/passwd")
(work / "status.json").write_text('{"status": "success"}')
