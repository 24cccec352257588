"""``jobsched doctor``: look at everything an installation stands on, say what is wrong, and mend what is safe.

Each check is a sentence that is true where all is well, and a look that tells whether it is. A check whose look
needs something that is away (Postgres, its schema, Redis) is not looked at, so that one fault is told once. What
can only be judged by watching (does it beat, is a message lost or on its way) is looked at twice, some seconds
apart. Mending (``--fix``) never sends a call twice and never loses one; what it may do is listed in docs/cli.md.

    finding   what a look says, and what a check is
    servers   Postgres, Redis, clocks, disk, sessions
    watch     who beats, and whether queue and database are in step: two looks
    work      pollers, workers, schedules, history
    report    lines for people, JSON for programs
    examine   runs the checks in order
"""

from jobsched.doctor.examine import examine

__all__ = ["examine"]
