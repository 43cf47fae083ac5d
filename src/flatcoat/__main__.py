"""`python -m flatcoat` is the command line."""

from flatcoat.app.cli import main

if __name__ == "__main__":
    main()
