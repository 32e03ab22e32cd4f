"""L4: layers round a call: whom to ask, when, how often."""
