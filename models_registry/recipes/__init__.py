"""Recipes: named, shareable stacks of LoRAs with a prompt and settings."""
