"""The sender's address is counted from the right, and the allowlist goes by it."""

from __future__ import annotations

import pytest
from flask import Request
from hypothesis import example, given, settings
from hypothesis import strategies as st
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


OWN_PROXIES = ("10.1.0.1", "10.1.0.2", "10.1.0.3")
ALLOWED = ("52.89.214.238", "10.1.0.1", "127.0.0.1", "2001:db8::5")
WORDS = st.one_of(
    st.sampled_from(
        [
            *ALLOWED,
            "52.89.214.238:443",
            "[2001:db8::5]:443",
            "::ffff:52.89.214.238",
            '"52.89.214.238"',
            "for=52.89.214.238",
            "unknown",
            "",
            " ",
            "\t",
            "52.89.214.238;",
            "52.89.214.238 52.89.214.238",
            "052.089.214.238",
            "0x34.0x59.0xd6.0xee",
            "52.89.214.238%0",
            "fe80::1%eth0",
            "::",
            "9" * 5000,
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30),
)
SPOOFED = st.lists(st.lists(WORDS, max_size=6).map(", ".join), max_size=3)


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
@settings(max_examples=200)
@given(spoofed=SPOOFED, attacker=st.sampled_from(["6.6.6.6", "2001:db9::6"]), lines=st.booleans())
@example(spoofed=["52.89.214.238"], attacker="6.6.6.6", lines=True)
@example(spoofed=["52.89.214.238," * 50], attacker="6.6.6.6", lines=False)
@example(spoofed=[",,,", " , "], attacker="6.6.6.6", lines=False)
def test_whatever_a_sender_writes_its_own_address_counts(
    hops: int, spoofed: list[str], attacker: str, lines: bool
) -> None:
    """Each proxy of ours appends whom it saw: to the last line, or as a line of its own."""
    sent, seen = list(spoofed), attacker
    for proxy in OWN_PROXIES[:hops]:
        if sent and not lines:
            sent[-1] = f"{sent[-1]}, {seen}"
        else:
            sent.append(seen)
        seen = proxy
    environ = {"REMOTE_ADDR": seen, "REQUEST_METHOD": "POST"}
    if sent:
        environ["HTTP_X_FORWARDED_FOR"] = ",".join(sent)  # as a server joins lines of one name
    request = Request(environ)
    assert client_address(request, hops) == attacker
    with pytest.raises(NotAllowed):
        check_address(client_address(request, hops), networks_of(",".join(ALLOWED) + ",tradingview"))


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("203.0.113.5:4711", "203.0.113.5"),
        ("[2001:db8::5]:4711", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("2001:db8::5", "2001:db8::5"),
    ],
)
def test_a_proxy_s_port_is_left_out(entry: str, address: str) -> None:
    assert client_address(request_with(f"1.1.1.1, {entry}"), 1) == address


@pytest.mark.parametrize(
    "entry", ['"52.89.214.238"', "for=52.89.214.238", "052.89.214.238", "52.89.214.238/32"]
)
def test_what_is_nearly_an_address_is_on_no_list(entry: str) -> None:
    with pytest.raises(NotAllowed):
        check_address(client_address(request_with(entry), 1), networks_of("tradingview"))


@pytest.mark.parametrize(
    "words",
    ["10.0.0.1/8", "nowhere", "1.2.3", "tradingview2", "2001:db8::/129", ",", " , ", " ", (" ",), ("", "")],
)
def test_a_list_with_a_word_that_is_none_or_with_no_word_is_refused(words: str | tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        networks_of(words)
