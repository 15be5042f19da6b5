"""Own one device: the agent claims and stores, its engine process draws."""
