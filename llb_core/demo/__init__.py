"""LLB shown and tried on real traffic, in network namespaces of its own.

`network` makes namespaces and links, `servers` and `load` are the programs that run in them, `lab`
puts clients, a load balancer and backends together, `story` tells the demo's phases, `screen` shows
them. The tests and the benchmarks use the same parts. What is not here: anything that a load
balancer in service needs.
"""
