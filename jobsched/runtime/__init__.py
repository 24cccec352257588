"""How a process lives and dies: signals, background services, child processes.

Knows nothing of databases, queues or HTTP; what runs is handed in as functions.
"""
