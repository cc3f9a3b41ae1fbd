"""Changes a file of its input."""

from pathlib import Path

work = Path("/mnt/work")
(work / "input" / "data_in" / "data_file.txt").write_text("mine")
(work / "status.json").write_text('{"status": "success"}')
