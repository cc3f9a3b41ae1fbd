"""Tries to reach a server by its address."""

import socket

from gbdx_task_interface import GbdxTaskInterface

with GbdxTaskInterface():
    socket.create_connection(("192.0.2.1", 443), timeout=5)
