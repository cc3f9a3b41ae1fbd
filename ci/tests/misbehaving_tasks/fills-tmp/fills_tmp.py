"""Writes more into /tmp than fits."""

from pathlib import Path

from gbdx_task_interface import GbdxTaskInterface

with GbdxTaskInterface():
    Path("/tmp/large").write_bytes(bytes(2**26))
