"""The registry over HTTP: one file per door."""
