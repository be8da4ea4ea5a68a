"""No secret in a line: by the name of its key, by its value in whatever spelling, and by its looks."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from app.service import observe
from app.service.clients import SIGNING_PREFIX, TOKEN_PREFIX

GONE = "[redacted]"
MIN_LENGTH = 4
"""A shorter secret is none, and would blacken half of every line."""
WHOLE_WORD_BELOW = 8
"""A PIN of four digits is looked for as a word of its own."""
MIN_PART = 6
"""Of a spelling within something longer, such as base64 of `name:secret`."""
MAX_TEXT = 2_000
MAX_TRACE = 8_000
MAX_ITEMS = 50
MAX_DEPTH = 4
MAX_LIVE = 256

_KEY = re.compile(
    r"token|secret|passw|authorization|cookie|api_?key|auth_?code|signature|credential|session|(^|_)pin($|_)",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"[^:]+://[^:/@]*:([^@]+)@")
"""A database's may hold what ends the place of any other address."""
_LONGEST = re.compile(r"[^:]+://[^:/?#]*:([^/?#]+)@")
"""Any other's may hold an `@`."""
_PAIR = re.compile(
    r"(?i)((?:token|secret|password|passwd|auth_?code|[?&]code|\bpin|appidhash|signature|api_?key)"
    r"(?:[\"']\s*:\s*[\"']|=\s*[\"']?|:(?=\S)))([^\s&\"',;}\])]{4,})"
)
_ROOTS = (
    "token", "secret", "passw", "authorization", "cookie", "apikey", "api_key", "authcode", "auth_code", "?code",
    "&code", "appidhash", "signature", "credential", "session", "pin",
)  # fmt: skip
"""One of these stands in whatever _KEY or _PAIR finds: most lines hold none, and the two are slow."""
_LOOKS = re.compile(
    r"(?<![\w-])eyJ[\w-]{8,}(?:\.[\w-]+){1,2}"
    r"|(?i:(?<=bearer )|(?<=basic ))[^\s\"',]+"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
_OWN_MARKS = TOKEN_PREFIX, SIGNING_PREFIX
_OWN = rf"{TOKEN_PREFIX}[\w-]{{20,}}|{SIGNING_PREFIX}[\w+/=-]{{20,}}"
_OWN_SHAPES = re.compile(f"(?ai){_OWN}")
_SHAPES = re.compile(rf"(?ai){_OWN}|(?<![\w-])eyJ[\w-]{{8,}}(?:\.[\w-]+){{1,2}}")
"""A client's token is known by its hash only, hence by its looks, and whatever stands before it (`token%3Dtvf_…`);
Fyers' tokens and signing secrets have theirs too.
"""


@lru_cache(maxsize=512)
def spellings(secret: str) -> tuple[str, ...]:
    """How a secret can turn up in a text: plain, escaped, URL-encoded, and in base64 at any offset."""
    found = {
        secret,
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }
    encoded = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    found |= encoded | {re.sub(r"%[0-9A-F]{2}", lambda m: m[0].lower(), e) for e in encoded}
    raw = secret.encode("utf-8", "surrogatepass")
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + raw).decode().rstrip("=")
        whole = (offset + len(raw)) * 8 // 6  # characters that no following byte changes
        part = text[(0, 2, 3)[offset] : whole]
        if len(part) >= MIN_PART:
            found |= {part, part.replace("+", "-").replace("/", "_")}
    return tuple(sorted((f for f in found if len(f) >= MIN_LENGTH), key=len, reverse=True))


class Secrets:
    """The living secrets of this process. Reading is lock-free; one that comes in replaces the tuple."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, None] = {}
        self._forms: tuple[tuple[str, bool], ...] = ()
        self._long: tuple[str, ...] = ()
        """In small letters, of those that `masked` looks for."""

    def add(self, *values: object) -> None:
        new = [v for v in values if isinstance(v, str) and len(v) >= MIN_LENGTH and v not in self._known]
        if not new:
            return
        with self._lock:
            known = {**self._known, **dict.fromkeys(new)}
            while len(known) > MAX_LIVE:
                known.pop(next(iter(known)))
            forms = {f: len(s) < WHOLE_WORD_BELOW for s in known for f in spellings(s)}
            self._known = known
            self._forms = tuple(sorted(forms.items(), key=lambda f: len(f[0]), reverse=True))
            self._long = tuple(dict.fromkeys(f.lower() for f, as_word in self._forms if not as_word))

    def add_settings(self, settings: BaseSettings) -> None:
        """Every SecretStr, its comma-separated parts too, and every password within an address."""
        for value in settings.model_dump().values():
            if isinstance(value, SecretStr):
                plain = value.get_secret_value().strip()
                self.add(plain, *(p.strip() for p in re.split(r"[,\s]", plain)))
                self.add(*(u for p in re.split(r"[,\s]", plain) for u in _passwords(p)))
                self.add(*(p.strip().removeprefix(SIGNING_PREFIX) for p in plain.split(",")))
            elif isinstance(value, str):
                self.add(*_passwords(value))

    def clean(self, text: str) -> str:
        """The text without any of them."""
        for form, as_word in self._forms:
            if form in text:
                text = _without(text, form, as_word=as_word)
        trail = observe.current()
        for secret in trail.hidden if trail is not None else ():
            for form in spellings(secret) if len(secret) >= MIN_LENGTH else ():
                if form in text:
                    text = _without(text, form, as_word=len(secret) < WHOLE_WORD_BELOW)
        if ("=" in text or ":" in text) and _may_hold(text):
            text = _PAIR.sub(rf"\g<1>{GONE}", text)
        if "eyJ" in text or "earer" in text or "asic" in text or "@" in text:
            text = _LOOKS.sub(GONE, text)
        if _has_mark(text):
            text = _OWN_SHAPES.sub(GONE, text)
        return text

    def masked(self, text: str) -> str:
        """A caller's words without living secrets, in whatever case: a symbol is shown in capitals.

        A secret below WHOLE_WORD_BELOW characters stays: whoever may send alerts could find a PIN by trying which
        word is hidden. For a long one nobody can try the half.
        """
        if len(text) < WHOLE_WORD_BELOW:
            return text
        low = text.lower()
        trail = observe.current()
        here = trail.hidden if trail is not None else ()
        came = (f.lower() for secret in here if len(secret) >= WHOLE_WORD_BELOW for f in spellings(secret))
        for form in (*self._long, *came):
            if form in low:
                text = re.sub(re.escape(form), observe.SECRET, text, flags=re.IGNORECASE)
                low = text.lower()
        return _SHAPES.sub(observe.SECRET, text)

    def is_clean(self, line: str) -> bool:
        """Whether a short line in JSON holds nothing to hide, so that its values need not be looked at one by one. When
        in doubt (an escaped character could hide something) it says no.
        """
        usual = len(line) <= MAX_TEXT and "\\" not in line and not _is_key(line)
        return usual and self.clean(line) == line

    def cleaned(self, value: Any, limit: int = MAX_TEXT, depth: int = 0) -> Any:  # noqa: ANN401 - as logged
        """A value fit for a line: clean, and bounded in length, number and depth."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.shortened(value, limit)
        if depth < MAX_DEPTH and isinstance(value, dict):
            pairs = list(value.items())[:MAX_ITEMS]
            return {self.cleaned(str(k), 100): self.of_key(str(k), v, depth + 1) for k, v in pairs}
        if depth < MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
            return [self.cleaned(v, limit, depth + 1) for v in list(value)[:MAX_ITEMS]]
        return self.shortened(str(value), limit)

    def shortened(self, text: str, limit: int) -> str:
        """Clean and bounded. What is far too long is cut first: cleaning takes time. The second cut takes away the
        rims of the first, where half a secret may stand.
        """
        return bounded(self.clean(bounded(text, 4 * limit)), limit)

    def of_key(self, key: str, value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - as logged
        if _is_key(key) and not isinstance(value, bool | int | float | None):
            return GONE
        return self.cleaned(value, depth=depth)


def _may_hold(text: str) -> bool:
    """Beyond ASCII other letters count as these too (the long s, the Kelvin sign): the expression must decide."""
    low = text.lower()
    return not text.isascii() or any(
        map(low.__contains__, _ROOTS)
    )  # on every line's way: half of a generator


def _has_mark(text: str) -> bool:
    """Whether one of our own tokens could stand in it: a path can hold one, when somebody puts it into the address."""
    low = text.lower()
    return any(mark in low for mark in _OWN_MARKS)


def _is_key(text: str) -> bool:
    return _may_hold(text) and _KEY.search(text) is not None


def bounded(text: str, limit: int) -> str:
    """Head and tail; the tail of a traceback is its cause."""
    if len(text) <= limit:
        return text
    head = limit // 4
    return f"{text[:head]} …({len(text) - limit} characters left out)… {text[head - limit :]}"


def _without(text: str, form: str, *, as_word: bool) -> str:
    if as_word:
        return re.sub(rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])", GONE, text)
    return text.replace(form, GONE)


def _passwords(address: str) -> Iterable[str]:
    return [
        form
        for found in (_PASSWORD.match(address), _LONGEST.match(address))
        if found
        for form in _both(found[1])
    ]


def _both(password: str) -> tuple[str, str]:
    return password, unquote(password)


SECRETS = Secrets()
"""This process's: loggers are the process's too."""
