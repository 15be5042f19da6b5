"""Archives: exports of chosen entries, and backups of the whole registry, as ZIP files whose members are listed with their hashes."""
