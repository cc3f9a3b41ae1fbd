"""Nests folders so deep that no path can name the last one."""

import os
from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out").mkdir()
os.chdir(work / "output" / "data_out")
for _ in range(1500):
    os.mkdir("deeper")
    os.chdir("deeper")
(work / "status.json").write_text('{"status": "success"}')
