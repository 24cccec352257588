"""The chaos bench: real processes, a steady load, seeded faults, and an accountant who trusts nobody.

    cluster     two APIs, two pollers, three workers, Postgres, Valkey and a recording target, restarted as a
                platform restarts them
    load        users' clients: schedules, one-offs, run-nows, retries, edits, pauses, cancels, redrives; keeps a log
                of every call and of what was answered
    plan        from a seed: which fault, when
    faults      each fault: strike, prove that it took effect, heal
    accountant  compares what was asked for, what Postgres says and what the target received

``python -m tests.chaos.bench`` or ``scripts/chaos`` runs it; ``records`` has the three records and the strikes.
"""
