"""Ends with exit code 0 and no status.json."""
