"""Closes its output, all in it and its status to everybody, and leaves a locked folder beside."""

from pathlib import Path

work = Path("/mnt/work")
(work / "output" / "data_out" / "locked").mkdir(parents=True)
(work / "output" / "data_out" / "locked" / "file.txt").write_text("within")
(work / "status.json").write_text('{"status": "success"}')
(work / "beside" / "locked").mkdir(parents=True)
folders = ["output/data_out/locked/file.txt", "output/data_out/locked", "output/data_out", "output"]
for name in (*folders, "status.json", "beside/locked", "beside", ""):
    (work / name).chmod(0)
