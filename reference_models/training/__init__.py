"""Train the reference models: one file per part, one file per model, and one loop for all of them."""
