"""L0: the values that every room shares: requests, events, responses, errors. No behaviour but folding."""
