"""Where the bytes of models are: taken in, hashed, kept, counted."""
