import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsched.domain.overlap import FREE, Occupancy, admit, admit_slots

OCCUPIED = Occupancy(occupied=True)
FULL = Occupancy(occupied=True, blocked=True)


@pytest.mark.parametrize(
    ("policy", "occupancy", "fate"),
    [
        ("allow", FULL, "queued"),
        ("skip", FREE, "queued"),
        ("skip", OCCUPIED, "skipped"),
        ("queue", FREE, "queued"),
        ("queue", OCCUPIED, "blocked"),
        ("queue", FULL, "skipped"),
    ],
)
def test_the_policy_decides_by_what_the_job_has(policy, occupancy, fate):
    assert admit(policy, occupancy) == fate


@given(
    policy=st.sampled_from(["allow", "skip", "queue"]),
    occupancy=st.builds(Occupancy, st.booleans(), st.booleans(), st.booleans()),
    count=st.integers(0, 20),
    room=st.integers(-3, 20),
)
def test_no_policy_lets_in_more_than_it_says(policy, occupancy, count, room):
    fates = admit_slots(policy, occupancy, count, room)
    assert len(fates) == count
    assert fates.count("queued") <= max(room, 0)
    if policy == "allow":
        assert set(fates) <= {"queued", "pending"}
    else:
        assert fates.count("queued") + occupancy.occupied <= 1 or fates.count("queued") == 0
        assert fates.count("blocked") == 0 or (policy == "queue" and not occupancy.blocked)
        assert fates.count("blocked") <= 1
    # Oldest first: whoever is let in came before whoever is not.
    order = [["queued", "blocked", "pending", "skipped"].index(fate) for fate in fates]
    assert order == sorted(order)
