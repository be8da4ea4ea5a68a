"""What a hostile sender sends: bodies that make no order, headers, and real alerts' bytes that are spoilt."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import strategies as st

from app.web.openapi import ROUTES
from tests.unit.web_desk import ALERT, TOKEN

POSTS = [
    (r.method, r.path.format(order_id="NOSUCH", name="nosuch"))
    for r in ROUTES
    if r.body is not None or r.method == "post"
]
PATHS = [(r.method, r.path.format(order_id="NOSUCH", name="nosuch")) for r in ROUTES]

NO_NUMBER: tuple[Any, ...] = (
    0,
    -1,
    1.5,
    10**18,
    10**30,
    "1e3",
    "٣",
    "",
    " ",
    None,
    True,
    [],
    {},
    [1],
    {"a": 1},
    "NaN",
    "1_0",
    "0x1",
)
BAD: dict[str, tuple[Any, ...]] = {
    "symbol": (
        "",
        None,
        7,
        [],
        "NOSUCH",
        "NIFTY\0",
        "A" * 5000,
        "../../etc/passwd",
        "'; DROP TABLE orders; --",
        "\ud800",
        "{{ticker}}",
    ),
    "strikeprice": (*NO_NUMBER, 24500.013, "24500abc"),
    "optionType": ("", "XX", None, 1, ["CE"]),
    "expiry": ("", "SOON", "2026-02-30", "0000-00-00", 1, None, {}, "9999-12-31", "2026-13-01T00:00:00Z"),
    "action": ("", "HOLD", None, 1, [], "BUY;SELL"),
    "lots": NO_NUMBER,
}
"""Values that make no order, whatever stands beside them."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *ALERT,
        "qty",
        "token",
        "idempotency_key",
        "strategy",
        "fired_at",
        "sl",
        "tp",
        "productType",
        "exchange",
        "state",
        "reason",
        "do",
        "all_positions",
        "status",
        "filled",
        "price",
    ]
) | st.text(max_size=12)


@st.composite
def alerts(draw: st.DrawFn) -> bytes:
    """An alert with one field that cannot be right, and others that may be anything."""
    name = draw(st.sampled_from(sorted(BAD)))
    fields = {
        **ALERT,
        **draw(st.dictionaries(NAMES, JSON, max_size=5)),
        name: draw(st.sampled_from(BAD[name])),
    }
    fields.pop("qty", None)  # beside it no lots, or none that can be read, are no mistake
    if draw(st.booleans()):
        fields["token"] = TOKEN
    return json.dumps(fields).encode()


BODIES = (
    alerts() | st.binary(max_size=300) | st.dictionaries(NAMES, JSON).map(lambda d: json.dumps(d).encode())
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Idempotency-Key",
            "X-Request-Id",
            "X-Forwarded-For",
            "Content-Type",
            "Content-Encoding",
            "Origin",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "Accept",
            "Cookie",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
    max_size=3,
)


def spoilt(body: bytes, rng: random.Random) -> bytes:
    """A real alert's bytes, changed in a few places."""
    found = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            found[at : at + rng.randint(1, 20)] = b""
        elif kind == 1:
            found[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
        elif kind == 2:
            found[at:at] = rng.choice(
                [b'"', b"{", b"}", b",", b"\\", b"\\ud800", b"\0", b"NaN", b"1e999", b"[" * 40, b'"a":' * 9]
            )
        elif kind == 3:
            start = rng.randrange(len(found) + 1)
            found[at:at] = found[start : start + 40]
        elif found and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
    return bytes(found)
