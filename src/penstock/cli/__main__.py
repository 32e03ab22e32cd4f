"""`python -m penstock.cli`, for programs that start one of the commands."""

from penstock.cli import main

main()
