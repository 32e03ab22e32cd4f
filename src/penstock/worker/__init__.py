"""L6: the worker: a model on this machine, behind the same stack as the gateway, with an engine for its upstream."""
