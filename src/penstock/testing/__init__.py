"""The kit for testing streams: what Penstock is tested with, for everybody else's tests as well."""
