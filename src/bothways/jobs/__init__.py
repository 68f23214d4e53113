"""One function per command; the command line and the Python API call these functions."""
