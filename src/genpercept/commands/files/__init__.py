"""Image files as a command takes them, and the files that it writes beside each other."""
