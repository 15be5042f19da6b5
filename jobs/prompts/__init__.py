"""The prompt grammar and the infotext written into pictures; pure."""
