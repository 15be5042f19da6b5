"""Find out what models have in common, without drawing with them."""
