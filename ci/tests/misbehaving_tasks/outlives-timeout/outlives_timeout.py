"""Sleeps for an hour, and ends when it is asked to."""

import time

from gbdx_task_interface import GbdxTaskInterface

with GbdxTaskInterface():
    print("ready", flush=True)
    time.sleep(3600)
