"""The ways in: the command line, the page, and the HTTP interface."""
