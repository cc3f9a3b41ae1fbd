"""Placeholder until the engine for clusters is there."""


def run(*arguments: object) -> None:
    """Not there yet."""
    raise RuntimeError("the Toil engine is not there yet")
