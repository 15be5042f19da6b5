"""Who calls: keys, sessions, signed URLs."""
