"""Leaves a folder called status.json."""

from pathlib import Path

work = Path("/mnt/work")
(work / "status.json").mkdir()
