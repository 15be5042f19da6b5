"""How the checkpoints of each family are told: a module per family, and one for each layout of their files."""
