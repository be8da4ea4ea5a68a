"""The cached token: who sees a new one when, what a dead store means, and who is told about an end."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

from app.store.tokens import StoredTokens
from app.store.tokens_file import FileObject
from tests.fakes import FakeNotifier
from tests.unit.token_builders import ENDS, OTHER_KEY, Memory, Time, record, sealed


class Given:
    """A token from the settings."""

    def __init__(self, token: str | None) -> None:
        self.token, self.ends_at = token, ENDS + timedelta(days=2)

    def current(self, now: object) -> str | None:
        return self.token


def cached(
    place: Memory | FileObject, time: Time, notifier: FakeNotifier | None = None, **more: str
) -> StoredTokens:
    given = Given(more["given"]) if "given" in more else None
    return StoredTokens(sealed(place), "X-200", time, notifier or FakeNotifier(), given)


def test_another_instance_sees_a_new_token_within_30_seconds() -> None:
    place, time = Memory(), Time()
    one, two = cached(place, time), cached(place, time)
    one.save(record(1))
    assert one.current(time.now()) == two.current(time.now()) == record(1).access_token
    one.save(record(2))
    assert one.current(time.now()) == record(2).access_token, "the writer itself sees it at once"
    waited = 0
    while two.current(time.now()) != record(2).access_token:
        time.pass_(1)
        waited += 1
        assert waited < 30
    assert waited > 1, "else every alert would ask the store"


def test_a_file_is_looked_at_each_second(tmp_path: Path) -> None:
    time, path = Time(), tmp_path / "tokens.json"
    one, two = cached(FileObject(path), time), cached(FileObject(path), time)
    one.save(record(1))
    assert two.current(time.now()) == record(1).access_token
    one.save(record(2))
    time.pass_(1)
    assert two.current(time.now()) == record(2).access_token


def test_the_content_is_read_only_when_it_has_changed() -> None:
    place, time = Memory(), Time()
    tokens = cached(place, time)
    tokens.save(record())
    tokens.current(time.now())
    reads = place.reads
    for _ in range(5):
        time.pass_(20)
        tokens.current(time.now())
    assert place.reads == reads
    assert place.looks == 6


def test_a_dead_store_leaves_the_cached_token_until_it_ends() -> None:
    place, time, notifier = Memory(), Time(), FakeNotifier()
    tokens = cached(place, time, notifier)
    tokens.save(record())
    assert tokens.current(time.now())
    place.is_down = True
    for _ in range(3):
        time.pass_(60)
        assert tokens.current(time.now()) == record().access_token
    assert notifier.pages == ["token_store_unavailable"]
    time.pass_((ENDS - time.now()).total_seconds())
    assert tokens.current(time.now()) is None
    assert notifier.pages == ["token_store_unavailable", "token_expired"]


def test_the_end_is_told_once_and_the_next_end_again() -> None:
    place, time, notifier = Memory(), Time(), FakeNotifier()
    tokens = cached(place, time, notifier)
    tokens.save(record())
    assert tokens.current(ENDS - timedelta(microseconds=1))
    assert notifier.pages == []
    for _ in range(3):
        assert tokens.current(ENDS) is None
    assert notifier.pages == ["token_expired"]
    tokens.save(record(2, ends_at=ENDS + timedelta(days=1)))
    assert tokens.current(ENDS)
    assert tokens.current(ENDS + timedelta(days=1)) is None
    assert notifier.pages == ["token_expired", "token_expired"]


def test_a_stored_unexpired_token_wins_over_a_given_one() -> None:
    place, time = Memory(), Time()
    tokens = cached(place, time, given="given")
    assert tokens.current(time.now()) == "given"
    tokens.save(record())
    assert tokens.current(time.now()) == record().access_token
    assert tokens.ends_at(time.now()) == ENDS
    assert tokens.current(ENDS) == "given"
    assert tokens.ends_at(ENDS) == ENDS + timedelta(days=2), "of the token that is used"


def test_another_app_s_token_is_not_used() -> None:
    place, time = Memory(), Time()
    sealed(place).save(record(app_id="OTHER-200"))
    assert cached(place, time).current(time.now()) is None


def test_an_unreadable_token_is_none_and_pages_instead_of_raising() -> None:
    place, time, notifier = Memory(), Time(), FakeNotifier()
    sealed(place, OTHER_KEY).save(record())
    assert cached(place, time, notifier).current(time.now()) is None
    assert notifier.pages == ["token_key_missing", "token_expired"]


def test_nobody_waits_for_another_thread_s_look_while_the_token_lasts() -> None:
    place, time = Memory(), Time()
    tokens = cached(place, time)
    tokens.save(record())
    tokens.current(time.now())
    time.pass_(60)
    entered, let_go = threading.Event(), threading.Event()
    real = place.stamp

    def slow() -> object:
        entered.set()
        assert let_go.wait(10)
        return real()

    place.stamp = slow  # type: ignore[method-assign]
    first = threading.Thread(target=tokens.current, args=(time.now(),))
    first.start()
    assert entered.wait(10)
    assert tokens.current(time.now()) == record().access_token
    assert first.is_alive(), "it still looks, and did not hold the other one up"
    let_go.set()
    first.join()
