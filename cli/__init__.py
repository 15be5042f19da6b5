"""The `imagefleet` command: one verb per file."""
