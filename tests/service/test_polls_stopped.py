"""A reconcile pass asks nothing of a broker that would block the account for one call more; an exit still goes out."""

from __future__ import annotations

import pytest

from app.domain.status import Status
from app.errors import BrokerReadFailed
from app.service.ready import POLLS_STOPPED, Unready
from tests.service.desk import TradingDesk


def test_no_pass_reads_and_an_exit_does() -> None:
    desk = TradingDesk()
    desk.held()
    desk.broker.unready = Unready("its rate limit was hit", POLLS_STOPPED)
    desk.broker.calls.clear()
    with pytest.raises(BrokerReadFailed, match="rate limit"):
        desk.reconcile()
    assert desk.broker.calls == []
    with pytest.raises(BrokerReadFailed, match="rate limit"):
        desk.alert()
    assert desk.broker.calls == []
    assert desk.alert("EXIT").order.status is Status.ACCEPTED
    assert desk.net() == 0
    desk.broker.unready = Unready("there is no valid access token", "token_expired")
    assert desk.reconcile().asked_broker, "any other reason is for the read itself to tell"
