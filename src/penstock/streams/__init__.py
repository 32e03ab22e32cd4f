"""L3: a reply under way: batches, the stream that gives them, the clocks that watch it, the shapes that compose."""
