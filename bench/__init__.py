"""Benches: what jobsched costs and how fast it is, each part held against its bars. ``scripts/bench --help``."""
