"""L0: the values that every room shares: requests, events, responses, usage, errors, targets. No behaviour but folding."""
