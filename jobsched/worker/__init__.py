"""The worker: takes ids as far as seats are free, claims them, calls their targets, records how it ended.

One thread each takes (``intake``), calls (``deliver``), commits (``record``), draws RQ's picture (``show``) and
proves that the process lives (``liveness``), so that none waits for another's server. ``process`` puts them
together; ``tasks`` is what a stock RQ worker calls instead.
"""
