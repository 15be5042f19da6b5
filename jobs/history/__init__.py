"""What became of jobs, counted: over time, and by what they used."""
