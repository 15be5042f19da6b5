"""The schema's history; `infra.database.migrate` runs it."""
