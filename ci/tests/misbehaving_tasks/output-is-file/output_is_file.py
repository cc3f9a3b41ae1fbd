"""Leaves a file where a folder is declared."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out").touch()
(work / "status.json").write_text('{"status": "success"}')
