"""Leaves links where the worker itself writes: run.json and status.json."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "run.json").symlink_to("../../../victim/run.json")
(work / "output" / "status.json").symlink_to("../../../victim/keep.txt")
(work / "status.json").write_text('{"status": "success"}')
