"""What entries have in common: by their weights, by their text, by people's word."""
