"""L1: bytes ⇄ frames. How a stream is delimited, and nothing of what it means. Sans-IO, bounded, invariant under cuts."""
