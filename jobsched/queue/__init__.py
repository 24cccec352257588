"""Redis: the lists of ids that are handed to workers, a wake-up, and a picture for RQ's tools.

Nothing here decides anything, and nothing here is believed. Postgres holds the truth: what Redis loses is
pushed again, what it says twice is claimed once, and what it says wrongly matches no row. So every call
may fail with QueueUnavailable, no call is repeated by itself, and whatever is read from Redis is either
an integer or thrown away.

    connection   how we connect: short timeouts, no retries, dead peers noticed
    broker       the messages: push, take, heads, depths, forget
    picture      what `rq info` shows: registries and job hashes, best effort
    client       running scripts, and what their failures mean
    waker        a worker's sleep, ended by a push
    rq_keys      the names and fields that RQ 3 expects; scripts: the Lua that writes them
"""
