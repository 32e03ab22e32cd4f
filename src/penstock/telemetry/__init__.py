"""L4: what happened: one record per call, made at the stream's own end, and the exporters that it goes to."""
