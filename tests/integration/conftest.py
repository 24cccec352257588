from collections.abc import Iterator

import pytest

from jobsched.db.connection import Link


@pytest.fixture
def link(database_url: str) -> Iterator[Link]:
    """A connection to this test's own database."""
    link = Link(database_url, "test")
    yield link
    link.close()
