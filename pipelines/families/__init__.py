"""How each model family draws."""
