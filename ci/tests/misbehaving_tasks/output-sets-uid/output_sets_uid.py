"""Leaves a program that runs as its owner."""

import shutil
from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out").mkdir()
shutil.copy("/bin/true", work / "output" / "data_out" / "program")
(work / "output" / "data_out" / "program").chmod(0o6755)
(work / "output" / "data_out").chmod(0o2755)
(work / "status.json").write_text('{"status": "success"}')
