"""``python -m flockchain``: the command line."""

from flockchain.cli import main

if __name__ == "__main__":
    main()
