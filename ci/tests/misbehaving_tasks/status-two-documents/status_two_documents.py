"""Appends a second JSON document to status.json."""

from pathlib import Path

work = Path("/mnt/work")
with (work / "status.json").open("a") as file:
    file.write('{"status": "failed"}')
    file.write('{"status": "success"}')
