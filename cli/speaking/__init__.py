"""What the commands that speak to a fleet over HTTP have in common."""
