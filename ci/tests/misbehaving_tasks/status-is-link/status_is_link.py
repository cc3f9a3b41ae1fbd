"""Leaves a link to a file of the host as status.json."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").symlink_to("/etc/passwd")
