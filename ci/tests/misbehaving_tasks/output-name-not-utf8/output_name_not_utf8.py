"""Writes a file whose name is Latin-1."""

import os
from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out").mkdir()
Path(os.fsdecode(b"/mnt/work/output/data_out/\xe9t\xe9.txt")).write_text("summer")
(work / "status.json").write_text('{"status": "success"}')
