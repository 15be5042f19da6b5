"""Fetch models and what is said of them from where people publish them: the hub, CivitAI, any https address."""
