"""Whatever arrives: a body or MalformedBody, an alert or InvalidAlert, and nothing else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidAlert, MalformedBody
from app.web.parse import parse_object
from tests.unit.test_schemas import BODY, alert

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)


@given(st.binary() | st.text(alphabet='{}[]":,0123456789eE.-a\\').map(str.encode))
def test_any_bytes(body: bytes) -> None:
    with contextlib.suppress(MalformedBody):
        assert isinstance(parse_object(body), dict)


@given(st.dictionaries(st.sampled_from(sorted(BODY)), JSON))
def test_any_fields(changes: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidAlert, MalformedBody):
        alert(**parse_object(json.dumps(changes).encode()))
