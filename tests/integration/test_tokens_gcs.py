"""The token as a GCS object: emulator, and before it the layer that enforces generations as GCS documents them."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from app.errors import TokenStoreUnavailable
from app.service.login import TokenRecord
from app.store import tokens_gcs
from app.store.tokens import Held, SealedTokens, StoredTokens
from app.store.tokens_gcs import GcsObject
from tests.fakes import FakeNotifier
from tests.unit.token_builders import KEY, OTHER_KEY, Time, record, sealed

pytest.importorskip("google.cloud.storage", reason="google-cloud-storage is not installed")
pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
from tests.gcs_layer import GcsLayer

NAME = "tokens.json"


AS_SERVED_S = tokens_gcs.TIMEOUT_S


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a moment is no bucket that hangs."""
    monkeypatch.setattr(tokens_gcs, "TIMEOUT_S", 10.0)


@pytest.fixture
def gcs() -> Iterator[GcsLayer]:
    with GcsLayer() as running:
        yield running


def place(gcs: GcsLayer, name: str = NAME) -> GcsObject:
    return GcsObject(gcs.bucket, name, gcs.client)


def in_gcs(gcs: GcsLayer, *keys: str, name: str = NAME) -> SealedTokens:
    return sealed(place(gcs, name), *(keys or (KEY,)))


def test_the_layer_refuses_a_stale_generation(gcs: GcsLayer) -> None:
    from google.api_core.exceptions import PreconditionFailed

    blob = gcs.client().bucket(gcs.bucket).blob("x")
    blob.upload_from_string("one", if_generation_match=0)
    first = gcs.client().bucket(gcs.bucket).get_blob("x").generation
    with pytest.raises(PreconditionFailed):
        blob.upload_from_string("two", if_generation_match=0)
    blob.upload_from_string("two", if_generation_match=first)
    second = gcs.client().bucket(gcs.bucket).get_blob("x").generation
    assert second != first
    with pytest.raises(PreconditionFailed):
        blob.upload_from_string("stale", if_generation_match=first)
    with pytest.raises(PreconditionFailed):
        blob.download_as_bytes(if_generation_match=first)
    with pytest.raises(PreconditionFailed):
        blob.delete(if_generation_match=first)
    assert gcs.get("x") == b"two"
    assert gcs.refused == 4
    blob.delete(if_generation_match=second)
    blob.upload_from_string("three", if_generation_match=0)
    assert gcs.client().bucket(gcs.bucket).get_blob("x").generation not in (first, second)


def test_without_the_layer_s_enforcement_a_stale_write_passes() -> None:
    """What the emulator does by itself, and why a test against it alone proves nothing."""
    with GcsLayer(enforce=False) as gcs:
        blob = gcs.client().bucket(gcs.bucket).blob("x")
        blob.upload_from_string("one", if_generation_match=0)
        blob.upload_from_string("two", if_generation_match=0)
        assert gcs.get("x") == b"two"


def test_a_token_comes_back_and_lies_encrypted(gcs: GcsLayer) -> None:
    tokens = in_gcs(gcs)
    assert tokens.load() is None
    assert tokens.save(record()) == record()
    assert tokens.load() == in_gcs(gcs).load() == record()
    assert b"secret" not in gcs.get(NAME)


def test_a_flipped_byte_a_swapped_object_and_a_missing_key_each_say_so(gcs: GcsLayer) -> None:
    in_gcs(gcs).save(record(1))
    in_gcs(gcs, name="other.json").save(record(2))
    whole, foreign = gcs.get(NAME), gcs.get("other.json")
    at = whole.index(b"gAAAA") + 30
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    for data, keys, code in (
        (flipped, (KEY,), "token_damaged"),
        (foreign, (KEY,), "token_swapped"),
        (whole, (OTHER_KEY,), "token_key_missing"),
    ):
        gcs.put(NAME, data)
        with pytest.raises(TokenStoreUnavailable) as caught:
            in_gcs(gcs, *keys).load()
        assert caught.value.code == code
        assert "secret" not in str(caught.value)


def test_plaintext_is_encrypted_once(gcs: GcsLayer) -> None:
    gcs.put(NAME, json.dumps({"access_token": "old-access"}).encode())
    found = in_gcs(gcs).load()
    assert found is not None
    assert found.access_token == "old-access"
    assert b"old-access" not in gcs.get(NAME)
    assert in_gcs(gcs).load() == found


def test_rotation_against_a_writer_loses_nothing(gcs: GcsLayer) -> None:
    in_gcs(gcs, KEY).save(record(1))
    rotating = in_gcs(gcs, OTHER_KEY, KEY)
    thread = threading.Thread(target=lambda: in_gcs(gcs, KEY).save(record(2)))
    thread.start()
    rotating.rotate()
    thread.join()
    assert rotating.load() == record(2)


def test_every_instance_sees_a_new_token_within_30_seconds(gcs: GcsLayer) -> None:
    clocks = [Time(), Time(), Time()]
    instances = [StoredTokens(in_gcs(gcs), "X-200", each, FakeNotifier()) for each in clocks]
    instances[0].save(record(1))
    assert [i.current(c.now()) for i, c in zip(instances, clocks, strict=True)] == [
        record(1).access_token
    ] * 3
    instances[0].save(record(2))
    for each in clocks:
        each.pass_(15)
    assert [i.current(c.now()) for i, c in zip(instances, clocks, strict=True)] == [
        record(2).access_token
    ] * 3


@pytest.mark.alone
def test_a_hung_bucket_costs_a_request_no_more_than_its_timeout(
    gcs: GcsLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_gcs, "TIMEOUT_S", AS_SERVED_S)
    clock, notifier = Time(), FakeNotifier()
    tokens = StoredTokens(in_gcs(gcs), "X-200", clock, notifier)
    tokens.save(record())
    assert tokens.current(clock.now())
    gcs.hung.clear()
    clock.pass_(15)
    began = time.monotonic()
    assert tokens.current(clock.now()) == record().access_token
    assert time.monotonic() - began < 1.0
    assert tokens.current(clock.now()) == record().access_token
    assert notifier.pages == ["token_store_unavailable"]


def test_a_bucket_that_is_not_there_is_one_clear_line(gcs: GcsLayer) -> None:
    away = GcsObject("no-such-bucket", NAME, gcs.client)
    with pytest.raises(TokenStoreUnavailable, match=r"token object cannot be (read|written)"):
        sealed(away).save(record())


class Together(GcsObject):
    """Both writers have read before either writes, so that every race is a true one."""

    def __init__(self, *args: Any, meet: threading.Barrier) -> None:
        super().__init__(*args)
        self._meet: threading.Barrier | None = meet

    def read(self) -> Held | None:
        held = super().read()
        if self._meet is not None:
            meet, self._meet = self._meet, None
            meet.wait(30)
        return held


class Heedless(Together):
    """As the writer would be without the precondition, before a store that would enforce it."""

    def _write(self, data: bytes, expected: int) -> bool:
        self._bucket_of().blob(self._object).upload_from_string(data, content_type="application/json")
        return True


def lost_in(gcs: GcsLayer, races: int, writer: type[Together] = Together) -> int:
    """How many of so many races ended without the newer token."""
    chance, clients, lost = random.Random(20261124), [gcs.client(), gcs.client()], 0
    for number in range(races):
        meet = threading.Barrier(2)
        records = [record(2 * number + 1), record(2 * number + 2)]
        newest = records[1]
        chance.shuffle(records)

        def write(which: int, mine: TokenRecord, meet: threading.Barrier = meet) -> None:
            there = writer(gcs.bucket, NAME, lambda: clients[which], meet=meet)
            saved = False
            while not saved:
                with suppress(
                    TokenStoreUnavailable
                ):  # a slow answer is no lost token: who is told so tries again
                    sealed(there).save(mine)
                    saved = True

        threads = [threading.Thread(target=write, args=pair) for pair in enumerate(records)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lost += in_gcs_of(gcs, clients[0]).load() != newest
    return lost


def in_gcs_of(gcs: GcsLayer, client: Any) -> SealedTokens:
    return sealed(GcsObject(gcs.bucket, NAME, lambda: client))


@pytest.mark.slow
def test_a_thousand_races_lose_nothing(gcs: GcsLayer) -> None:
    assert lost_in(gcs, 1000) == 0
    assert gcs.refused >= 1000, "each race had a loser who was told"


def test_some_races_lose_nothing(gcs: GcsLayer) -> None:
    assert lost_in(gcs, 20) == 0
    assert gcs.refused >= 20


def test_the_same_races_lose_tokens_where_the_precondition_is_not_enforced() -> None:
    with GcsLayer(enforce=False) as gcs:
        assert lost_in(gcs, 20) > 0
        assert gcs.refused == 0


def test_the_same_races_lose_tokens_without_the_precondition(gcs: GcsLayer) -> None:
    assert lost_in(gcs, 20, Heedless) > 0
    assert gcs.refused == 0
