"""Image files in and out: `read` anything, `write` predictions atomically, `colour` them to look at."""
