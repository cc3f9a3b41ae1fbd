"""Its output holds a named pipe, on which a reader would wait for ever."""

import os
from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out").mkdir()
os.mkfifo(work / "output" / "data_out" / "pipe")
(work / "status.json").write_text('{"status": "success"}')
