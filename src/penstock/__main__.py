"""`python -m penstock`: the command, for programs that start it, and where its script is not on the path."""

from penstock.cli import main

if __name__ == "__main__":
    main()
