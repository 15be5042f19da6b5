"""Which models exist, where their bytes are, what they need."""
