"""Doors for clients of other programs: their paths and forms, our jobs."""
