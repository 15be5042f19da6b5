"""Accept jobs over HTTP and report on them; never imports torch."""
