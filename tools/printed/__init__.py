"""What README and the documentation print, run as printed: `tools/printed_commands.py`."""
