"""A wait that is over ends, and one that is not is left alone."""

from __future__ import annotations

import os
import socket

import pytest

from app.store.watchdog import Watchdog


def test_whoever_waits_on_a_silent_socket_is_woken_at_the_end_of_its_time() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(5)
        with Watchdog().over(near.fileno(), 0.01):
            assert near.recv(1) == b"", "shut down under the wait"
        os.fstat(near.fileno())  # the descriptor itself is still its owner's


def test_a_later_one_that_ends_first_is_first() -> None:
    watchdog = Watchdog()
    pairs = [socket.socketpair() for _ in range(2)]
    try:
        for near, _ in pairs:
            near.settimeout(5)
        with watchdog.over(pairs[0][0].fileno(), 60), watchdog.over(pairs[1][0].fileno(), 0.01):
            assert pairs[1][0].recv(1) == b""
            pairs[0][1].send(b"x")
            assert pairs[0][0].recv(1) == b"x", "its time is not over"
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def test_what_ended_in_time_is_left_alone() -> None:
    watchdog = Watchdog()
    near, far = socket.socketpair()
    other, silent = socket.socketpair()
    with near, far, other, silent:
        with watchdog.over(near.fileno(), 0.02):
            pass
        other.settimeout(5)
        with watchdog.over(
            other.fileno(), 0.05
        ):  # a later time of the same thread: the first one has gone by
            assert other.recv(1) == b""
        far.send(b"x")
        assert near.recv(1) == b"x"


def test_one_that_nobody_ends_is_over_with_its_time_and_keeps_no_descriptor() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(5)
        watchdog = Watchdog()
        watch = watchdog.begin(near.fileno(), 0.01)
        assert near.recv(1) == b""
        watchdog.end(watch)  # too late: it is over
        assert watch.is_over
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(watch.descriptor)


def test_whoever_has_the_number_of_a_socket_that_was_closed_is_left_alone() -> None:
    near, far = socket.socketpair()
    other, silent = socket.socketpair()
    with far, other, silent:
        far.settimeout(5)
        with Watchdog().over(near.fileno(), 0.05):
            number = near.detach()
            os.dup2(other.fileno(), number)  # what was `near` is closed, and `other` has its number too
            assert far.recv(1) == b"", "its time is over"
        silent.send(b"x")
        other.settimeout(5)
        assert other.recv(1) == b"x"
        os.close(number)
