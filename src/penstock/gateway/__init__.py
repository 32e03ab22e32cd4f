"""L6: the gateway: any client dialect in, any upstream dialect out."""
