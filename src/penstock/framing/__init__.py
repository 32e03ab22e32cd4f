"""L1: bytes ⇄ frames. How a stream is delimited, not what it means. Sans-IO, bounded."""
