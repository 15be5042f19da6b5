"""Draw every task with every model at hand, and look at what comes."""
