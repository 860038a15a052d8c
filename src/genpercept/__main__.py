"""`python -m genpercept`."""

from genpercept.cli import main

if __name__ == "__main__":
    main()
