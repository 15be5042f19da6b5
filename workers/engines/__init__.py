"""The engines an agent can feed, behind one interface."""
