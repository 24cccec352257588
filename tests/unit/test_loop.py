"""Sockets parked between two calls: what they say is not passed on, and none is mistaken for another."""

import os
import socket
from collections.abc import Iterator

import pycurl
import pytest

from jobsched.callback.loop import EpollWatch

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def watch() -> Iterator[EpollWatch]:
    watch = EpollWatch()
    yield watch
    watch.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def wait_for(watch: EpollWatch, near: socket.socket) -> None:
    watch.on_socket(pycurl.POLL_IN, near.fileno(), None, None)


def park(watch: EpollWatch, near: socket.socket) -> None:
    watch.on_socket(pycurl.POLL_REMOVE, near.fileno(), None, None)


def test_a_socket_that_was_parked_is_heard_again(watch: EpollWatch, pair: Pair) -> None:
    near, far = pair
    wait_for(watch, near)
    park(watch, near)
    assert watch.is_silent(near.fileno())
    wait_for(watch, near)
    far.send(b"x")
    assert [fd for fd, _events in watch.wait(1)] == [near.fileno()]


def test_what_a_parked_socket_says_is_not_passed_on_but_known(watch: EpollWatch, pair: Pair) -> None:
    near, far = pair
    wait_for(watch, near)
    park(watch, near)
    far.close()
    assert watch.wait(1) == []
    assert not watch.is_silent(near.fileno())
    assert watch.wait(0) == []
    wait_for(watch, near)
    assert [fd for fd, _events in watch.wait(1)] == [near.fileno()]


def test_another_socket_under_the_number_of_a_parked_one_is_heard(watch: EpollWatch, pair: Pair) -> None:
    near, _far = pair
    wait_for(watch, near)
    park(watch, near)
    number = near.fileno()
    other, its_far = socket.socketpair()
    with its_far:
        near.close()
        watch.opened()
        os.dup2(other.fileno(), number)
        other.close()
        with socket.socket(fileno=number) as again:
            assert not watch.is_silent(number)
            wait_for(watch, again)
            its_far.send(b"x")
            assert [fd for fd, _events in watch.wait(1)] == [number]
