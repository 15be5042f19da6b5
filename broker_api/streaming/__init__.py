"""Tell those who watch what happens, as it happens."""
