"""Where records go. One file each; all of them run in a thread of the bus, never in the stream's way."""
