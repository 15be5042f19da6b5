"""The API's own doors for jobs, batches and results."""
