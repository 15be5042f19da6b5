"""OpenAI's Images API, `/v1/images`: its clients' requests become jobs like any other."""
