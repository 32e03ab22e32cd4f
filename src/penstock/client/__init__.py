"""L5: the public Python API, on the gateway's own handlers and without a gateway."""
