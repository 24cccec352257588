"""Decisions, and nothing else: no I/O, no clock and no randomness of their own.

When a job is due, what becomes of late slots, what an attempt's end means, what a job may look like. Time and
random numbers are arguments, so that tests need neither waiting nor luck.
"""
