"""Look through folders for models, and bring the table up to date."""
