"""`python -m gateway` is the command line."""

from operations.cli import main

if __name__ == "__main__":
    main()
