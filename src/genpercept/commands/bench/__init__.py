"""`genpercept bench`: time and memory."""
