"""``python -m cloister``: the command line, where its script is not on the path."""

from cloister.cli.main import main

if __name__ == "__main__":
    main()
