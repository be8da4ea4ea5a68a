"""The table of states: total, closed where it must be, and loud about any other move."""

from __future__ import annotations

import pytest

from app.domain.status import BORN, MOVES, UNSETTLED, WORKING, IllegalMoveError, Status, check_move


def test_every_state_has_a_row_and_can_be_reached() -> None:
    assert set(MOVES) == set(Status)
    reached, edge = set(BORN), set(BORN)
    while edge:
        edge = {after for before in edge for after in MOVES[before]} - reached
        reached |= edge
    assert reached == set(Status)


@pytest.mark.parametrize("before", Status)
@pytest.mark.parametrize("after", Status)
def test_a_move_outside_the_table_raises(before: Status, after: Status) -> None:
    if after in MOVES[before]:
        check_move(before, after)
    else:
        with pytest.raises(IllegalMoveError):
            check_move(before, after)


def test_what_was_perhaps_sent_is_never_sent_again() -> None:
    again = {before for before, afters in MOVES.items() if Status.SENDING in afters}
    assert again == {Status.NOT_SENT, Status.EXIT_PENDING}
    assert {before for before, afters in MOVES.items() if Status.NOT_SENT in afters} == {Status.SENDING}


def test_a_denial_and_a_fill_are_final() -> None:
    assert MOVES[Status.DENIED] == MOVES[Status.FILLED] == frozenset()


def test_unsettled_and_working_are_different_things() -> None:
    assert not UNSETTLED & WORKING
