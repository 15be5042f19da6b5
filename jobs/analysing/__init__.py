"""Jobs that look at models instead of drawing."""
