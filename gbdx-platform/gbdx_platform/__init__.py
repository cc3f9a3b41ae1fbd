"""gbdx-platform: register GBDX tasks, run workflows of them and fetch their results, on CWL engines."""

__version__ = "0.1.0"
