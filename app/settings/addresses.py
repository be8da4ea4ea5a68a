"""Addresses among the settings: what can be read as one, and where a secret may go. No error quotes the address."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

PORTS = range(1, 65_536)
_SQLITE = re.compile(r"sqlite(\+pysqlite)?:///(?!:memory:|file:)[^?]+(\?.*)?")
"""In a file: what is kept in memory would be another database in each connection, and gone with the process."""
_POSTGRES = re.compile(
    r"postgresql(?:\+psycopg)?://(?:[^:/]*(?::[^@]*)?@)?+"
    r"(?:\[[^/?@\s]+\]|[^/:?@\s]+)?(?::(?P<port>[0-9]{1,5}))?(?:/[^?@]*)?(?:\?.*)?"
)
"""As SQLAlchemy divides it, which loads only where the database is used: a password ends at its first @. What would come
behind that is refused: it would be taken for a host, and errors quote the host.
"""


def is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def sealed(address: str, scheme: str) -> str:
    """The address without blanks around it. Raises ValueError unless it has a host and the `scheme`, https or wss; the
    same in clear text is for loopback alone, where a simulator is.
    """
    bare, found = scheme.removesuffix("s"), address.strip()
    try:
        parts = urlsplit(found)
        is_sealed = parts.scheme == scheme or (parts.scheme == bare and is_loopback(parts.hostname))
        is_good = is_sealed and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, quoted
        is_good = False
    if not is_good or re.search(r"\s", found):
        raise ValueError(f"expected {scheme}:// with a host, or {bare}:// on loopback")
    return found


def database(address: str) -> str:
    """The address without blanks around it. Raises ValueError for what no database here can be reached by."""
    found = address.strip()
    postgres = _POSTGRES.fullmatch(found)
    if not (_SQLITE.fullmatch(found) or (postgres and int(postgres["port"] or 5432) in PORTS)):
        raise ValueError(
            "expected sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME, "
            "with each @ of the password written %40"
        )
    return found


def redis(address: str) -> str:
    """The address without blanks around it. Raises ValueError for one that the library could not divide."""
    found = address.strip()
    try:
        is_good = re.match(r"(rediss?|unix)://", found) is not None and urlsplit(found).port != 0
    except ValueError:  # a port that is no number, quoted
        is_good = False
    if not is_good:
        raise ValueError(
            "expected redis://, rediss:// or unix://, the port a number, and / ? # of a password percent-encoded"
        )
    return found
