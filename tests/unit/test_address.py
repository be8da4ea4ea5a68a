"""The sender's address is counted from the right, and the allowlist goes by it."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from app.errors import NotAllowed
from app.web.middleware.address import check_address, client_address, networks_of


def request_with(forwarded: str | None) -> Request:
    headers = Headers({} if forwarded is None else {"X-Forwarded-For": forwarded})
    return Request(EnvironBuilder(headers=headers, environ_base={"REMOTE_ADDR": "10.0.0.9"}).get_environ())


@pytest.mark.parametrize(
    ("forwarded", "hops", "wanted"),
    [
        ("52.89.214.238", 0, "10.0.0.9"),
        (None, 1, "10.0.0.9"),
        ("52.89.214.238", 1, "52.89.214.238"),
        ("52.89.214.238, 6.6.6.6", 1, "6.6.6.6"),
        ("1.1.1.1, 52.89.214.238, 10.1.1.1", 2, "52.89.214.238"),
        ("52.89.214.238", 2, "10.0.0.9"),
        (" , ,", 1, "10.0.0.9"),
    ],
)
def test_only_entries_of_our_own_proxies_count(forwarded: str | None, hops: int, wanted: str) -> None:
    assert client_address(request_with(forwarded), hops) == wanted


@pytest.mark.parametrize("address", ["52.89.214.238", "::ffff:52.89.214.238", "2001:db8::5"])
def test_listed_addresses_pass(address: str) -> None:
    check_address(address, networks_of("TradingView, 2001:db8::/32"))


@pytest.mark.parametrize("address", ["52.89.214.239", "2001:db9::5", "unknown", "52.89.214.238, x", ""])
def test_all_others_do_not(address: str) -> None:
    with pytest.raises(NotAllowed):
        check_address(address, networks_of("tradingview,2001:db8::/32"))


def test_no_list_is_no_limit() -> None:
    check_address("unknown", networks_of(""))
