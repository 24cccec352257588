"""What one target does must not fail the call of another job to the same host."""

from jobsched.testing.target import Target
from tests.integration.transports import open_transport, send


def test_a_connection_that_died_inside_an_answers_head_is_not_given_to_the_next_call() -> None:
    with Target() as target:
        transport = open_transport()
        for _ in range(5):
            assert send(transport, target.url + "/cut-headers").error_code == "protocol_error"
            assert send(transport, target.url + "/ok").status == 200
        transport.close()
