"""How each kind of model is told from its configuration and the names and shapes of its tensors."""
