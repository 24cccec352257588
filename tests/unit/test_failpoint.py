import subprocess
import sys

import pytest

from jobsched import failpoint
from jobsched.errors import ConfigError

_PASSES = """
import sys
from jobsched import failpoint, log
log.configure(json=True)
failpoint.arm(sys.argv[1])
for n in range(5):
    failpoint.passing("worker.taken")
    failpoint.passing("fire.committed")
    print(n, flush=True)
"""


def passes(spec):
    done = subprocess.run([sys.executable, "-c", _PASSES, spec], capture_output=True, text=True, check=False)
    assert "failpoint_armed" in done.stderr
    return done.returncode, done.stdout.split()


def test_a_process_ends_at_the_armed_point_the_nth_time_and_at_no_other():
    assert passes("fire.committed:exit:3") == (9, ["0", "1"])
    assert passes("worker.answered:exit") == (0, ["0", "1", "2", "3", "4"])


@pytest.mark.parametrize("spec", ["", "fire", "fire.committed", "fire.commited:exit", "fire.committed:burn"])
def test_what_is_no_fail_point_is_refused(spec):
    with pytest.raises(ConfigError, match="JOBSCHED_FAILPOINT"):
        failpoint.arm(spec)
