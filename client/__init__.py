"""A small typed client over HTTP."""
