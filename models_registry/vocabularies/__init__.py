"""Cut texts into tokens as text encoders do, without the libraries that draw."""
