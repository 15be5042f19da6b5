"""Take pictures in and give them out."""
