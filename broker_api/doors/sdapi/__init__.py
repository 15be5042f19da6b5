"""The A1111 and SD.Next API, `/sdapi/v1` and what belongs to it; what A1111 keeps per server is kept per API key here."""
