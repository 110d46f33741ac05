"""LLB, a layer-4 load balancer: the names that authors of providers import, and no others."""
