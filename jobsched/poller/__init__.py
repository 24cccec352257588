"""The poller: fires due schedules, releases what waits, puts right what a crash has left, keeps house.

Any number of pollers run side by side; each row is locked by one of them at a time.
"""
