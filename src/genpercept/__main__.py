"""`python -m genpercept`."""

from genpercept.commands.cli import main

if __name__ == "__main__":
    main()
