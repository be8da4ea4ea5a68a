"""The settings of notifications: what is refused, and which channel wants what."""

from __future__ import annotations

import pytest

from app.settings import SettingsError, load


def test_channels_are_named_without_their_addresses() -> None:
    settings = load(
        notify_urls="tgram://bot-secret/42, mailto://me:pass@example.com?to=a%2Cb",
        notify_preferences='{"1": "pages", "*": ["all", "-order_filled"]}',
    )
    (telegram, url), (mail, _) = settings.channels
    assert url == "tgram://bot-secret/42"
    assert (telegram.name, mail.name) == ("1 tgram", "2 mailto")
    assert "bot-secret" not in repr((telegram, mail, settings))
    assert telegram.id != mail.id
    assert telegram.wants("anything", page=True)
    assert not telegram.wants("order_filled", page=False)
    assert mail.wants("order_accepted", page=False)
    assert not mail.wants("order_filled", page=False)
    assert not mail.wants("order_filled", page=True)


def test_without_preferences_each_gets_all() -> None:
    ((channel, _),) = load(notify_urls="json://127.0.0.1:1/x").channels
    assert channel.wants("order_filled", page=False)
    assert load().channels == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTIFY_URLS", "127.0.0.1/a-secret-place"),
        ("NOTIFY_PREFERENCES", "pages"),
        ("NOTIFY_PREFERENCES", '["pages"]'),
        ("NOTIFY_PREFERENCES", '{"0": "pages"}'),
        ("NOTIFY_PREFERENCES", '{"one": "pages"}'),
        ("NOTIFY_PREFERENCES", '{"1": "Pages!"}'),
        ("NOTIFY_PREFERENCES", '{"1": [1]}'),
        ("NOTIFY_PREFERENCES", '{"1": ["all", "-order_acepted"]}'),
        ("NOTIFY_PER_MINUTE", "3"),
    ],
)
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert name in str(caught.value)
    assert "a-secret-place" not in str(caught.value)


def test_a_slip_of_the_pen_is_told_what_was_meant() -> None:
    with pytest.raises(SettingsError, match="did you mean protection_missing"):
        load(notify_preferences='{"1": ["protecton_missing"]}')
