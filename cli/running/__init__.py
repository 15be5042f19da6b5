"""What the commands that run parts of a fleet on this machine have in common."""
