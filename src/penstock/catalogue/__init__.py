"""L3: who exists: the providers that everybody knows, and those of the user's own file."""
