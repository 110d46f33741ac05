"""The control socket: HTTP and JSON over a Unix socket, its two ends and what is said on it.

`server` is the daemon's end, `client` that of the command line, `views` the answers' form. Nothing
is decided here.
"""
