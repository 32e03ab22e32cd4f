"""L3: how bytes travel: one request out, one response in. `http1` is the network, `memory` a script of it."""
