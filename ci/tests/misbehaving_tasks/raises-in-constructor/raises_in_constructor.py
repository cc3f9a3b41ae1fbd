"""Its constructor raises before the interface's has run."""

from gbdx_task_interface import GbdxTaskInterface


class RaisesInConstructor(GbdxTaskInterface):
    def __init__(self):
        raise ValueError("expected a model, found none")


with RaisesInConstructor() as task:
    task.invoke()
