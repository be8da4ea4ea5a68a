"""Could the next alert become an order? Every condition looked at once, in words that a newcomer can act on.

Read before the market opens: by a person (`flask --app app.wsgi preflight`) and by the job that tells one when not.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

from app.domain.alert import IST
from app.domain.contract import ist_date
from app.domain.deadline import Deadline
from app.domain.order import Mode
from app.domain.risk import TradingState
from app.domain.session import has_holidays_of, is_trading_day, previous_trading_day, trading_day_from
from app.errors import NoMaster, ServiceError, StoreUnavailable
from app.runtime import in_force
from app.service.master_age import stale_files
from app.service.preflight import Finding, Light, Preflight
from app.service.ready import code_of
from app.web.ports import Ports

if TYPE_CHECKING:
    from app.preflight.broker import BrokerLook  # loads the broker's client, where it is used only

OPENS, CLOSES = time(9, 15), time(15, 40)
WRITE_WITHIN_S = 2.0
GOOD_OFFSET_S, MOST_OFFSET_S = 3.0, 30.0
"""The Date header has whole seconds and travels for some. Beyond half a minute fresh signals would look stale."""
LOG_IN = "log in: open /fyers/login, or flask --app app.wsgi login"
GOOD_SUFFIX = "-200"
"""Apps made since April 2026; orders from older ones (`-100`) are refused (fyers-api.md 5)."""


def preflight(ports: Ports, look: Callable[[Ports], BrokerLook] | None = None) -> Preflight:
    """Look at everything; each look is bounded, and one that fails does not keep the others from being made.

    Sends no order and asks the broker for two reads. `look` asks the network.
    """
    asks_fyers = ports.settings.has_real_market
    database = _database(ports)
    findings = [database, _trading_state(ports, database), _master(ports), _calendar(ports)]
    if asks_fyers:
        from app.preflight.broker import look_at_broker

        seen = (look or look_at_broker)(ports)
        findings += [_app_id(ports), _token(ports), _funds(ports, seen), _clock(seen)]
        findings += [_market(ports, seen), _address(ports, seen)]
    else:
        said = "the paper exchange is this program's own: it needs no login, no app and no network"
        findings.append(Finding("broker", Light.SKIPPED, said))
    findings += [_broker(ports), _redis(ports)]
    now = ports.clock.now()
    in_hours = in_force(ports.settings, ports.config).hours_enforced
    waits = in_hours and not _trades_at(now)
    return Preflight(ports.scope.mode, now, tuple(findings), waits)


def _trades_at(moment: datetime) -> bool:
    local = moment.astimezone(IST)
    return is_trading_day(local.date()) and OPENS <= local.time() < CLOSES


def _database(ports: Ports) -> Finding:
    """Reads the schema's revision and writes one row: a full disk or a read-only database shows only at a write."""
    settings = ports.settings
    if not settings.database_url and not (settings.instance_dir / "orders.sqlite3").exists():
        mend = "start the service once (make run), or: flask --app app.wsgi migrate"
        return Finding("database", Light.BAD, "there is none yet: nothing was started here so far", mend)
    problem = ports.store.check()
    try:
        if problem is None:
            deadline = Deadline(ports.clock.monotonic() + WRITE_WITHIN_S)
            ports.store.try_write(deadline)
    except StoreUnavailable as error:
        problem = f"it can be read but not written: {error.detail}"
    if problem:
        mend = "is it running (DATABASE_URL)? then: flask --app app.wsgi migrate (on SQLite the first start does it)"
        return Finding("database", Light.BAD, problem, mend)
    kind = "SQLite" if settings.is_sqlite else "Postgres"
    return Finding("database", Light.OK, f"{kind}, at this version's schema, and can be written")


def _trading_state(ports: Ports, database: Finding) -> Finding:
    if database.light is Light.BAD:
        return Finding("trading state", Light.SKIPPED, "unknown without the database, and so HALTED")
    try:
        ports.desk()  # the first one ever makes the account's rows; before it all is HALTED
        with ports.store.read() as tx:
            state = tx.trading_state(ports.scope)
    except ServiceError as error:
        return Finding("trading state", Light.BAD, f"unreadable, so halted: {error.detail}")
    if state is TradingState.ACTIVE:
        return Finding("trading state", Light.OK, "ACTIVE")
    said = "HALTED: no alert sends anything" if state is TradingState.HALTED else f"{state}: exits only"
    mend = "look why (`flask --app app.wsgi state show`), then `flask --app app.wsgi resume --reason …`"
    return Finding("trading state", Light.BAD, said, mend)


def _master(ports: Ports) -> Finding:
    """The contract index: there, of the right day in every options file, and with a next NIFTY expiry."""
    mend = "flask --app app.wsgi refresh-master"
    now = ports.clock.now()
    try:
        age = ports.contracts.age()
        expiry = _next_expiry(ports, now)
    except NoMaster as error:
        return Finding("contracts", Light.BAD, error.detail, mend)
    wanted = previous_trading_day(ist_date(now))
    expected = ports.settings.options_files
    old = stale_files(age, now, expected)
    names = expected or sorted(n for n in age.dates if n.endswith("_FO.csv"))
    days = ", ".join(f"{n} of {age.dates.get(n) or 'no day'}" for n in names)
    hours = int((now - age.built_at).total_seconds() // 3600)
    size = f"{age.rows} contracts, {age.skipped} bad rows left out, built {hours} h ago; {days}"
    if not any("NSE_FO" in n for n in names):
        return Finding("contracts", Light.OK if not old else Light.BAD, size, mend if old else "")
    if expiry is None:
        return Finding("contracts", Light.BAD, f"no NIFTY expiry that still trades; {size}", mend)
    if old:
        light = Light.BAD if len(old) == len(names) or "NSE_FO.csv" in old else Light.NOTE
        said = f"older than {wanted}: {', '.join(old)}, so no entries in those (exits work); {size}"
        return Finding(
            "contracts", light, said, f"{mend} (Fyers publishes in the morning, from about 08:00 IST)"
        )
    return Finding("contracts", Light.OK, f"{size}; NIFTY's next expiry is {expiry:%a %d %b %Y}")


def _next_expiry(ports: Ports, now: datetime) -> date | None:
    """NIFTY's. Only the real index can be asked for it."""
    from app.brokers.fyers.symbols import IndexedContracts

    assert isinstance(ports.contracts, IndexedContracts)
    return ports.contracts.next_expiry("NIFTY", now)


def _calendar(ports: Ports) -> Finding:
    today = ist_date(ports.clock.now())
    if not has_holidays_of(today.year):
        said = f"no holidays of {today.year} are known, so every weekday counts as a trading day"
        return Finding("holidays", Light.NOTE, said, "list them in a file and name it in HOLIDAYS_FILE")
    if not is_trading_day(today):
        following = trading_day_from(today)
        said = f"no trading today; the next trading day is {following:%a %d %b %Y}"
        return Finding("holidays", Light.NOTE, said)
    return Finding("holidays", Light.OK, f"{today:%a %d %b %Y} is a trading day")


def _app_id(ports: Ports) -> Finding:
    app_id = ports.settings.fyers_app_id
    light = Light.BAD if ports.scope.mode is Mode.LIVE else Light.NOTE
    if not app_id:
        return Finding(
            "Fyers app", light, "FYERS_APP_ID is empty", "set it to the app's id at myapi.fyers.in"
        )
    ending = app_id.rpartition("-")[2]
    if not app_id.endswith(GOOD_SUFFIX):
        said = f"the app id ends in -{ending}; since April 2026 orders go only from apps that end in {GOOD_SUFFIX}"
        mend = "create a new app at myapi.fyers.in (with order permission and your static IP), set its id and secret"
        return Finding("Fyers app", light, said, mend)
    said = f"the app id ends in {GOOD_SUFFIX}, as it must; whether it may place orders only an order shows"
    return Finding("Fyers app", Light.OK, said)


def _token(ports: Ports) -> Finding:
    """There, and lasting until the close of the session that comes next."""
    from app.brokers.fyers.login import record_of

    now = ports.clock.now()
    token = ports.tokens.current(now)
    if token is None:
        return Finding(
            "login", Light.BAD, "there is no valid access token: one login is due each day", LOG_IN
        )
    ends = record_of(ports.settings.fyers_app_id, token, now).ends_at.astimezone(IST)
    local = now.astimezone(IST)
    day = local.date() if local.time() < CLOSES else local.date() + timedelta(days=1)
    closes = datetime.combine(trading_day_from(day), CLOSES, IST)
    said = f"logged in; the token ends {ends:%a %d %b %H:%M} IST"
    if ends < closes:
        return Finding("login", Light.NOTE, f"{said}: log in again before the next session", LOG_IN)
    return Finding("login", Light.OK, said)


def _funds(ports: Ports, seen: BrokerLook) -> Finding:
    if not seen.was_asked:
        return Finding("funds", Light.SKIPPED, "not asked: that needs a login")
    if seen.trouble:
        mend = (
            LOG_IN if seen.is_refused else "is there a network? see FYERS_API_URL, and Fyers' own status page"
        )
        return Finding("funds", Light.BAD, seen.trouble, mend)
    if seen.available is None:
        return Finding("funds", Light.NOTE, "Fyers answered, without a readable available balance")
    said = f"Fyers answers; {seen.available:,.2f} rupees are available"
    if seen.available <= 0 and ports.scope.mode is Mode.LIVE:
        return Finding("funds", Light.NOTE, said, "buying an option needs its whole price: add funds")
    return Finding("funds", Light.OK, said)


def _clock(seen: BrokerLook) -> Finding:
    if seen.offset_s is None:
        return Finding("clock", Light.SKIPPED, "Fyers told no time to compare with")
    said = f"{abs(seen.offset_s):.0f} s {'ahead of' if seen.offset_s > 0 else 'behind'} Fyers'"
    mend = "switch on time synchronisation (NTP): tokens, sessions and signal ages go by this clock"
    if abs(seen.offset_s) > MOST_OFFSET_S:
        return Finding("clock", Light.BAD, said, mend)
    if abs(seen.offset_s) > GOOD_OFFSET_S:
        return Finding("clock", Light.NOTE, said, mend)
    return Finding("clock", Light.OK, "agrees with Fyers'")


def _market(ports: Ports, seen: BrokerLook) -> Finding:
    """Fyers' own word about hours and holidays, against the calendar that the checks go by."""
    if seen.market is None:
        return Finding("market", Light.SKIPPED, "Fyers told no market status")
    expected = _trades_at(ports.clock.now())
    is_open = seen.market == "OPEN"
    said = f"NSE derivatives: {seen.market}"
    if is_open == expected:
        hours = "" if is_open else "; it trades 09:15 to 15:40 IST on trading days"
        return Finding("market", Light.OK, said + hours)
    mend = "a holiday or a special session that the calendar does not know? HOLIDAYS_FILE takes more days"
    return Finding(
        "market",
        Light.NOTE,
        f"{said}, but by the calendar it should be {'open' if expected else 'closed'}",
        mend,
    )


def _address(ports: Ports, seen: BrokerLook) -> Finding:
    if not ports.settings.preflight_ip_url:
        said = "not asked for: PREFLIGHT_IP_URL is empty"
        return Finding("address", Light.SKIPPED, said, "set it (https://api.ipify.org, say) to see it here")
    if seen.address is None:
        return Finding("address", Light.NOTE, f"not known: {seen.address_trouble}", "see PREFLIGHT_IP_URL")
    from app.brokers.fyers.not_allowed import seen_address

    seen_address(ports.settings.instance_dir).keep(seen.address)  # for the one refusal that it explains
    said = (
        f"orders leave from {seen.address}; exactly this has to be the static IP of the app at myapi.fyers.in"
    )
    return Finding("address", Light.OK, said)


def _broker(ports: Ports) -> Finding:
    """What an alert would be told before anything is asked: the token again, and the breaker, after a look at what the
    other instances know of it, because the reads made here go past the guard and teach it nothing.
    """
    is_shared = _learn_breakers(ports)
    problem = ports.broker.ready()
    if problem and code_of(problem) == "token_expired":
        return Finding("breaker", Light.SKIPPED, "nothing goes out before the login")
    if problem:
        return Finding("breaker", Light.BAD, str(problem), "GET /readyz shows what the running service sees")
    if is_shared or not ports.settings.has_real_market:
        return Finding("breaker", Light.OK, "closed: orders may go out")
    return Finding(
        "breaker", Light.OK, "closed, by what this process knows; GET /readyz tells the service's own"
    )


def _learn_breakers(ports: Ports) -> bool:
    """Whether the guard before the broker has just heard from the other instances. The paper exchange keeps its own
    out of sight, and without Redis there is nobody to ask.
    """
    from app.brokers.guard import Guard

    broker = getattr(ports.broker, "inner", ports.broker)  # behind what counts its calls
    return isinstance(broker, Guard) and broker.learn()


def _redis(ports: Ports) -> Finding:
    url = ports.settings.redis_url
    if not url:
        return Finding("redis", Light.SKIPPED, "REDIS_URL is empty: each process goes by itself")
    from redis.exceptions import RedisError

    from app.brokers.guard import connect

    client = connect(url)
    try:
        client.ping()
    except RedisError as error:
        said = f"not reachable ({type(error).__name__}); each process has 1/EXPECTED_PROCESSES of the budget meanwhile"
        return Finding("redis", Light.NOTE, said, "see REDIS_URL")
    finally:
        client.close()
    return Finding("redis", Light.OK, "answers")
