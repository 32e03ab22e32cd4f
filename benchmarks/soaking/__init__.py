"""What `benchmarks/soak.py` is made of: what is asked (`plan`, `owed`), by whom (`upstream`, `clients`), and what is
left of it (`process`, `observed`, `verdict`)."""
