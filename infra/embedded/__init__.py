"""Postgres and Redis of our own on one machine: no containers, no root needed, no harm as root."""
