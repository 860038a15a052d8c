"""What people type: a folder for each command, whose options.py declares its options and nothing else.

`options.py` imports click and nothing heavy, so that `genpercept --help` stays quick. The code that does the work is imported
inside the command's function, when it runs: torch alone takes seconds.
"""
