"""The sealed token: what is kept, what opens it, who wins, and what an error says."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import TokenStoreUnavailable
from app.service.login import TokenRecord
from app.store.tokens import Held
from app.store.tokens_file import FileObject
from tests.unit.token_builders import KEY, OTHER_KEY, Memory, in_file, record, sealed


def test_a_token_comes_back_as_it_was_and_lies_encrypted_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tokens.json"
    tokens = sealed(FileObject(path))
    assert tokens.load() is None
    assert tokens.save(record()) == record()
    assert tokens.load() == record()
    raw = path.read_bytes()
    assert b"secret" not in raw
    assert b"X-200" not in raw
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".tokens.json.")] == [
        ".tokens.json.lock"
    ]


def test_no_secret_is_in_a_record_s_text() -> None:
    assert "secret" not in repr(record()) + str(record())


def flipped(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_a_flipped_byte_anywhere_is_an_error_or_harmless_and_never_another_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    tokens = in_file(tmp_path)
    tokens.save(record())
    whole = path.read_bytes()
    codes = set()
    for at in range(len(whole)):
        flipped(path, at)
        try:
            assert tokens.load() == record(), at
        except TokenStoreUnavailable as error:
            codes.add((error.code, str(error)))
        path.write_bytes(whole)
    assert codes == {("token_damaged", "the stored token is damaged: log in anew")}
    flipped(path, whole.index(b"gAAAA") + 40)
    with pytest.raises(TokenStoreUnavailable, match="damaged") as caught:
        tokens.load()
    assert caught.value.code == "token_damaged"


def test_a_swapped_object_does_not_open(tmp_path: Path) -> None:
    here, there = sealed(FileObject(tmp_path / "a.json")), sealed(FileObject(tmp_path / "b.json"))
    here.save(record(1))
    there.save(record(2))
    (tmp_path / "a.json").write_bytes((tmp_path / "b.json").read_bytes())
    with pytest.raises(TokenStoreUnavailable, match="another name") as caught:
        here.load()
    assert caught.value.code == "token_swapped"
    assert here.save(record(3)) == record(3)
    assert here.load() == record(3)


def test_a_missing_key_is_named_and_a_new_login_is_the_way_out(tmp_path: Path) -> None:
    in_file(tmp_path, KEY).save(record())
    other = in_file(tmp_path, OTHER_KEY)
    with pytest.raises(TokenStoreUnavailable, match="TOKEN_ENCRYPTION_KEYS") as caught:
        other.load()
    assert caught.value.code == "token_key_missing"
    assert KEY not in str(caught.value)
    other.save(record(2))
    assert other.load() == record(2)


def test_rotation_lets_the_old_key_go(tmp_path: Path) -> None:
    in_file(tmp_path, KEY).save(record())
    both = in_file(tmp_path, OTHER_KEY, KEY)
    assert both.load() == record()
    assert both.rotate() is True
    assert both.rotate() is False
    assert in_file(tmp_path, OTHER_KEY).load() == record()


def test_nothing_to_rotate(tmp_path: Path) -> None:
    assert in_file(tmp_path).rotate() is False
    assert not (tmp_path / "tokens.json").exists()


@pytest.mark.parametrize("act", ["load", "rotate"])
def test_plaintext_of_earlier_versions_is_read_once_and_encrypted(tmp_path: Path, act: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"access_token": "old-access", "refresh_token": None, "other": 1}, indent=2))
    path.chmod(0o644)
    tokens = in_file(tmp_path)
    getattr(tokens, act)()
    assert b"old-access" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = tokens.load()
    assert found is not None
    assert (found.access_token, found.refresh_token) == ("old-access", "")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b'{"token": "x"}', b"{" * 2000])
def test_what_is_no_token_file_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokens.json").write_bytes(content)
    with pytest.raises(TokenStoreUnavailable) as caught:
        in_file(tmp_path).load()
    assert caught.value.code == "token_damaged"


def test_a_slower_writer_never_overwrites_a_newer_token() -> None:
    place = Memory()
    tokens = sealed(place)
    real_write = place.write

    def first_somebody_else(data: bytes, expected: int) -> bool:
        place.write = real_write  # type: ignore[method-assign]
        sealed(place).save(record(2))
        return real_write(data, expected)

    place.write = first_somebody_else  # type: ignore[method-assign]
    assert tokens.save(record(1)) == record(2)
    assert tokens.load() == record(2)


def test_a_newer_one_wins_a_lost_race_at_the_second_try() -> None:
    place = Memory()
    tokens = sealed(place)
    real_write = place.write

    def first_somebody_else(data: bytes, expected: int) -> bool:
        place.write = real_write  # type: ignore[method-assign]
        sealed(place).save(record(1))
        return real_write(data, expected)

    place.write = first_somebody_else  # type: ignore[method-assign]
    assert tokens.save(record(2)) == record(2)
    assert tokens.load() == record(2)


def test_a_write_whose_answer_was_lost_counts_when_it_arrived() -> None:
    place = Memory(lose_answers=1)
    assert sealed(place).save(record()) == record()
    assert place.held is not None
    assert place.held.generation == 1
    place.is_down = True
    with pytest.raises(TokenStoreUnavailable):
        sealed(place).save(record(2))


def test_a_logout_is_not_undone_by_an_older_login() -> None:
    place = Memory()
    tokens = sealed(place)
    tokens.save(record(2))
    tokens.save(record(2).logged_out())
    stored = tokens.save(record(1))
    assert stored.access_token == ""
    assert tokens.save(record(3)) == record(3)


def test_generations_of_a_file_count_up_and_a_stale_one_is_refused(tmp_path: Path) -> None:
    place = FileObject(tmp_path / "tokens.json")
    assert place.write(b"one", 0)
    assert not place.write(b"stale", 0)
    assert place.write(b"two", 1)
    assert not place.write(b"stale", 1)
    assert place.read() == Held(2, b"two")


def race(save: Callable[[TokenRecord], object], older: TokenRecord, newer: TokenRecord) -> None:
    start = threading.Barrier(2)

    def run(mine: TokenRecord) -> None:
        start.wait()
        save(mine)

    threads = [threading.Thread(target=run, args=(each,)) for each in (older, newer)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_racing_writers_of_one_file_lose_nothing(tmp_path: Path) -> None:
    for number in range(0, 200, 2):
        race(lambda mine: in_file(tmp_path).save(mine), record(number + 1), record(number + 2))
        assert in_file(tmp_path).load() == record(number + 2)


def test_a_directory_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenStoreUnavailable, match="token file cannot be used"):
        sealed(FileObject(tmp_path / "file" / "tokens.json")).save(record())
