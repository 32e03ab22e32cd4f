"""L5: a client's side of a call, shared by gateway and worker: parse, call, relay."""
