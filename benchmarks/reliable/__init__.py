"""What `benchmarks/reliability.py` is made of."""
