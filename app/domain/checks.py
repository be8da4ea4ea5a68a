"""The risk checks themselves, one small function each: its limit, the present value, and the reason of a "no"."""

from __future__ import annotations

from datetime import date, time, timedelta

from app.domain.alert import IST, Product
from app.domain.limits import Limits, PositionPolicy, Runaway
from app.domain.proposal import Finding, Proposal, TradingState
from app.domain.session import is_trading_day

OPENS = time(9, 15)
"""IST, of NSE's and BSE's derivatives. The end is the contract's own (fyers-api.md 5: 15:40 since August 2026)."""


def _within(ok: object, limit: object, value: object, reason: str) -> Finding:
    return Finding(str(limit), str(value), None if ok else reason)


def trading_state(p: Proposal, _: Limits) -> Finding:
    allowed = p.state is TradingState.ACTIVE or (p.state is TradingState.REDUCING and p.is_exit)
    reason = "trading is reducing: exits pass, entries do not"
    if p.state is TradingState.HALTED:
        reason = "trading is halted: no alert sends anything until a person resumes"
    return _within(allowed, TradingState.ACTIVE, p.state, reason)


def position_policy(p: Proposal, limits: Limits) -> Finding | None:
    policy = limits.position_policy
    if policy is PositionPolicy.ANY:
        return None
    refused = p.is_buy if policy is PositionPolicy.COVER_ONLY else not p.is_buy
    word = "BUY" if p.is_buy else "SELL"
    return _within(not refused, policy, word, f"a {word} that opens a position is not allowed by {policy}")


def symbol(p: Proposal, limits: Limits) -> Finding | None:
    lists = [names for names in (limits.symbols, p.client_symbols) if names is not None]
    if not lists:
        return None
    allowed = frozenset.intersection(*lists)
    name = p.contract.underlying.upper()
    words = ", ".join(sorted(allowed)) or "none"
    return _within(name in allowed, words, name, f"{name} is not among the allowed symbols: {words}")


def master_fresh(p: Proposal, _: Limits) -> Finding:
    have, wanted = p.contract.master_date, p.master_not_before
    return _within(
        have >= wanted,
        wanted,
        have,
        f"the symbol master is of {have}, expected {wanted} or later: "
        "an entry on stale contract data could have the wrong lot",
    )


def feed_current(p: Proposal, _: Limits) -> Finding | None:
    if not p.live:
        return None
    return _within(
        not p.delayed_feed,
        "real time",
        "delayed" if p.delayed_feed else "real time",
        "the alert comes from a delayed feed (_DL, _DLY): its signal is minutes old",
    )


def signal_age(p: Proposal, limits: Limits) -> Finding | None:
    most = limits.max_exit_age_s if p.is_exit else limits.max_signal_age_s
    if most is None or p.fired_at is None:
        return None
    age = (p.now - p.fired_at).total_seconds()
    # A signal from the future is as wrong as an old one: one of the two clocks is off.
    return _within(
        -most <= age <= most,
        f"{most} s",
        f"{age:.1f} s",
        f"the signal fired {age:.1f} s ago, the limit is {most} s either way",
    )


def market_open(p: Proposal, limits: Limits) -> Finding | None:
    if not limits.enforce_hours:
        return None
    ends = p.contract.session_end.astimezone(IST).time()
    is_open = is_trading_day(p.ist.date()) and OPENS <= p.ist.time() < ends
    hours = f"{OPENS:%H:%M}-{ends:%H:%M} IST on trading days"
    if p.broker_says_open is not None:
        word = "open" if p.broker_says_open else "closed"
        reason = f"the market is closed, says the broker; it trades {hours}"
        return _within(p.broker_says_open, "open", word, reason)
    return _within(is_open, hours, f"{p.ist:%a %d %b %H:%M}", f"the market is closed: it trades {hours}")


def intraday_cutoff(p: Proposal, limits: Limits) -> Finding | None:
    cutoff = limits.intraday_cutoff
    if cutoff is None or not limits.enforce_hours or p.product is Product.MARGIN:
        return None
    if p.ist.time() >= p.contract.session_end.astimezone(IST).time():
        return (
            None  # the day's session is over: a special one in the evening has no square-off to be late for
        )
    reason = f"{p.product} entries end at {cutoff:%H:%M} IST: later ones become carry-forward at the broker"
    return _within(p.ist.time() < cutoff, f"before {cutoff:%H:%M} IST", f"{p.ist:%H:%M}", reason)


def expiry_cutoff(p: Proposal, limits: Limits) -> Finding | None:
    cutoff = limits.expiry_cutoff
    if cutoff is None or p.contract.expiry != p.ist.date():
        return None
    reason = f"the contract expires today, and entries in it end at {cutoff:%H:%M} IST"
    return _within(p.ist.time() < cutoff, f"before {cutoff:%H:%M} IST", f"{p.ist:%H:%M}", reason)


def stock_expiry(p: Proposal, limits: Limits) -> Finding | None:
    days = limits.stock_expiry_days
    if days is None or not p.contract.is_stock:
        return None
    left = _trading_days_between(p.ist.date(), p.contract.expiry)
    reason = f"a stock option settles in shares: entries end {days} trading days before its expiry, {left} are left"
    return _within(left > days, f"more than {days} trading days", left, reason)


def _trading_days_between(first: date, last: date) -> int:
    """Trading days after `first`, up to `last` and with it; zero on the day itself."""
    return sum(is_trading_day(first + timedelta(days=n)) for n in range(1, max(0, (last - first).days) + 1))


def lot_multiple(p: Proposal, _: Limits) -> Finding:
    lot = p.contract.lot
    below = p.quantity // lot * lot
    allowed = f"{below} or {below + lot}" if below else f"{lot}"
    reason = f"quantity {p.quantity} is not a whole number of lots of {lot}; allowed would be {allowed}"
    return _within(p.quantity % lot == 0, f"lots of {lot}", p.quantity, reason)


def max_lots(p: Proposal, limits: Limits) -> Finding:
    lots = limits.lots_for(p.contract.underlying.upper(), p.product.value)
    name = "WEBHOOK_MAX_QTY" if lots == limits.max_lots else "QTY_CAPS"
    if p.client_max_lots is not None and p.client_max_lots < lots:
        lots, name = p.client_max_lots, "the client's limit"
    allowed = lots * p.contract.lot
    reason = (
        f"quantity {p.quantity} is above {lots} lots of {p.contract.lot} ({name}); allowed would be {allowed}"
    )
    return _within(p.quantity <= allowed, f"{allowed} ({lots} lots)", p.quantity, reason)


def freeze(p: Proposal, _: Limits) -> Finding | None:
    freeze = p.contract.freeze
    if freeze is None:
        return None
    most = freeze // p.contract.lot * p.contract.lot
    reason = (
        f"quantity {p.quantity} is above the exchange's freeze quantity {freeze}; allowed would be {most}"
    )
    return _within(p.quantity <= freeze, freeze, p.quantity, reason)


def tradable(p: Proposal, _: Limits) -> Finding | None:
    """By the day's JSON master; where that is not known nothing is denied."""
    trades = p.contract.tradable
    if trades is None:
        return None
    return _within(trades, "trades", "trades" if trades else "does not", "the contract does not trade today")


def circuit(p: Proposal, _: Limits) -> Finding | None:
    """At a limit of the day's price range one side of the book is gone, and beyond it the quote is not of today."""
    low, high = p.contract.circuit_low, p.contract.circuit_high
    if low is None or high is None or p.price is None:
        return None
    touch = p.price.ask if p.is_buy else p.price.bid
    reason = f"the order would trade at {touch}, and today's price range is {low} to {high}"
    return _within(low <= touch <= high, f"{low} to {high}", touch, reason)


def order_value(p: Proposal, limits: Limits) -> Finding | None:
    most = limits.max_order_value
    if most is None or p.price is None:
        return None
    value = p.price.ltp * p.quantity
    return _within(value <= most, most, value, f"the order is worth {value} rupees, the limit is {most}")


def order_risk(p: Proposal, limits: Limits) -> Finding | None:
    most = limits.max_order_risk
    if most is None or p.price is None or p.price.stop_distance is None:
        return None
    risk = p.price.stop_distance * p.quantity
    return _within(risk <= most, most, risk, f"the stop risks {risk} rupees, the limit is {most}")


def price_band(p: Proposal, limits: Limits) -> Finding | None:
    most = limits.price_band_percent
    if most is None or p.price is None:
        return None
    touch = p.price.ask if p.is_buy else p.price.bid
    away = abs(touch - p.price.ltp) / p.price.ltp * 100
    reason = f"the order would trade at {touch}, {away:.2f} % from the last price; the limit is {most} %"
    return _within(away <= most, f"{most} %", f"{away:.2f} %", reason)


def spread(p: Proposal, limits: Limits) -> Finding | None:
    most = limits.max_spread_percent
    if most is None or p.price is None:
        return None
    spread = (p.price.ask - p.price.bid) / ((p.price.ask + p.price.bid) / 2) * 100
    reason = (
        f"the spread {p.price.bid} to {p.price.ask} is {spread:.2f} % of its middle; the limit is {most} %"
    )
    return _within(spread <= most, f"{most} %", f"{spread:.2f} %", reason)


def min_premium(p: Proposal, limits: Limits) -> Finding | None:
    least = limits.min_premium
    if least is None or p.price is None:
        return None
    reason = f"the last price {p.price.ltp} is under the least premium {least}"
    return _within(p.price.ltp >= least, least, p.price.ltp, reason)


def repeat(p: Proposal, limits: Limits) -> Finding | None:
    least = limits.repeat_seconds
    if least is None or p.exposure is None:
        return None
    if p.exposure.last_same is None:
        return _within(ok=True, limit=f"{least} s", value="none before", reason="")
    since = (p.now - p.exposure.last_same).total_seconds()
    reason = f"the same contract and side was ordered {since:.1f} s ago, the limit is one in {least} s"
    return _within(since >= least, f"{least} s", f"{since:.1f} s", reason)


def open_lots(p: Proposal, limits: Limits) -> Finding | None:
    most = limits.max_open_lots
    if most is None or p.exposure is None:
        return None
    after = p.exposure.open_lots + p.lots
    reason = (
        f"{p.exposure.open_lots} lots are open or under way, {p.lots} more would pass the limit of {most}"
    )
    return _within(after <= most, most, after, reason)


def open_value(p: Proposal, limits: Limits) -> Finding | None:
    most = limits.max_open_value
    if most is None or p.exposure is None or p.price is None:
        return None
    after = p.exposure.open_value + p.price.ltp * p.quantity
    reason = f"open positions would be worth {after} rupees, the limit is {most}"
    return _within(after <= most, most, after, reason)


def runaway(p: Proposal, limits: Limits) -> Finding | None:
    if limits.runaway is None or p.exposure is None:
        return None
    return tries(p.exposure.tried, limits.runaway)


def tries(tried: int, most: Runaway) -> Finding:
    reason = f"the strategy has tried {tried} entries in {most.seconds} s, the limit is {most.orders}"
    return _within(tried <= most.orders, f"{most.orders} in {most.seconds} s", tried, reason)
