"""Decide what ought to be in the maps, and how to get there. Pure: no I/O, no clock, no kernel.

`resolve` says what is desired, `maglev` fills a service's table, `plan` orders the changes, and
`expiry` says which connections are over.
"""
