"""Tries to become root in four ways and writes down who it is."""

import os
import subprocess
from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out").mkdir()
said = []
attempts = {
    "setuid": lambda: os.setuid(0),
    "setgroups": lambda: os.setgroups([0]),
    "chown": lambda: os.chown(work / "output", 0, 0),
    "su": lambda: subprocess.run(["su", "--command", "id"], check=True, input=b""),
}
for name, attempt in attempts.items():
    try:
        attempt()
        said.append(f"{name} worked")
    except (OSError, subprocess.CalledProcessError) as error:
        said.append(f"{name}: {type(error).__name__}")
(work / "output" / "data_out" / "attempts.txt").write_text("\n".join(said))
(work / "output" / "data_out" / "ids.txt").write_text(f"{os.getresuid()} {os.getresgid()} {os.getgroups()}")
(work / "status.json").write_text('{"status": "success"}')
