"""Plumbing that knows no product word."""
