"""``python -m jobsched`` is the command ``jobsched``."""

from jobsched.cli import main

if __name__ == "__main__":
    main()
