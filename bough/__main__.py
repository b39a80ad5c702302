"""`python -m bough`, the same as the command `bough`."""

from bough.cli import main

if __name__ == "__main__":
    main()
