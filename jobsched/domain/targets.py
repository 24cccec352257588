"""Which URLs and addresses a callback may name: pure rules, no lookup, no configuration.

The rule is "deny unless public". An address is public when no IANA special-purpose registry (RFC 6890 and
its successors, IPv4 and IPv6) lists it, when no cloud keeps its metadata there, and when the same holds for
the IPv4 address that it may carry inside. ``ipaddress.is_global`` is not enough: it lets 15 of 38 known bad
addresses through.

URLs are read by a strict grammar of our own instead of ``urllib``: what two parsers read differently (tabs,
backslashes, credentials, percent signs in hosts) is refused, so the address that is checked is the one that
is dialled.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_LENGTH = 2048

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(?:#.*)?", re.S
)
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?", re.S)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9]+")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_ASCII_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

# Dots of other scripts, which IDNA reads as full stops (RFC 3490, section 3.1).
_DOTS = str.maketrans("。．｡", "...")


def _table(rows: dict[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(network), name) for network, name in rows.items())


METADATA = frozenset(map(ip_address, ("169.254.169.254", "fd00:ec2::254", "168.63.129.16")))
"""Where clouds keep credentials of the machine; only an exact /32 or /128 may ever open them."""

_SPECIAL_V4 = _table(
    {
        "0.0.0.0/8": "a “this network” address",
        "10.0.0.0/8": "a private address",
        "100.64.0.0/10": "a carrier-grade NAT address",
        "127.0.0.0/8": "a loopback address",
        "169.254.0.0/16": "a link-local address",
        "172.16.0.0/12": "a private address",
        "192.0.0.0/24": "reserved for IETF protocols",
        "192.0.2.0/24": "reserved for documentation",
        "192.31.196.0/24": "reserved for AS112",
        "192.52.193.0/24": "reserved for AMT relays",
        "192.88.99.0/24": "a 6to4 relay address",
        "192.168.0.0/16": "a private address",
        "192.175.48.0/24": "reserved for AS112",
        "198.18.0.0/15": "reserved for benchmarks",
        "198.51.100.0/24": "reserved for documentation",
        "203.0.113.0/24": "reserved for documentation",
        "224.0.0.0/4": "a multicast address",
        "240.0.0.0/4": "a reserved address",
    }
)

# IPv6 is the other way round: only 2000::/3 is given out as global unicast, and these are holes in it.
_SPECIAL_V6 = _table(
    {
        "2001::/23": "reserved for IETF protocols (Teredo, ORCHID, benchmarks)",
        "2001:db8::/32": "reserved for documentation",
        "2002::/16": "a 6to4 address",
        "2620:4f:8000::/48": "reserved for AS112",
        "3fff::/20": "reserved for documentation",
    }
)
_NAMED_V6 = _table(
    {
        "::/128": "the unspecified address",
        "::1/128": "a loopback address",
        "fc00::/7": "a private address",
        "fe80::/10": "a link-local address",
        "fec0::/10": "a site-local address",
        "ff00::/8": "a multicast address",
    }
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_IN_LOW_BITS = (IPv6Network("::/96"), IPv6Network("::ffff:0:0:0/96"), _NAT64)
_NOT_WRAPPERS = frozenset((IPv6Address("::"), IPv6Address("::1")))


@dataclass(frozen=True, slots=True)
class TargetUrl:
    """A URL that passed the grammar, in the one spelling that is looked up, checked and dialled."""

    scheme: str
    host: str
    """Lower case, without brackets and final dot; a literal address in its canonical spelling."""
    port: int
    rest: str
    """Path and query, starting with ``/``, percent-encoded to ASCII."""
    address: Address | None
    """The host as an address, where it is one in any spelling."""
    authority: str = field(init=False, compare=False)
    """Host and port as a Host header has them: a literal IPv6 in brackets, no usual port."""
    text: str = field(init=False, compare=False)
    """The whole URL again, without a fragment and a usual port."""

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        usual = self.port == (443 if self.scheme == "https" else 80)
        object.__setattr__(self, "authority", host if usual else f"{host}:{self.port}")
        object.__setattr__(self, "text", f"{self.scheme}://{self.authority}{self.rest}")

    @property
    def origin(self) -> tuple[str, str, int]:
        """What decides whether a redirect leaves the site (RFC 6454)."""
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        return self.text


def check_url(url: str) -> str | None:
    """Why ``url`` cannot be a target, in one sentence; None when its form is right.

    A literal address is not judged here, because the operator may allow it: see ``literal_address`` and the
    guard of the callbacks.
    """
    try:
        parse_url(url)
    except ValueError as error:
        return str(error)
    return None


@lru_cache(maxsize=8192)
def parse_url(url: str) -> TargetUrl:
    """Take ``url`` apart. Raises ValueError, whose text is one sentence for the user."""
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"A URL has at most {MAX_URL_LENGTH} characters; this one has {len(url)}.")
    if _UNPRINTABLE.search(url):
        raise ValueError("A URL has no spaces, control characters or backslashes; percent-encode them.")
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError("This is not a URL; it starts with http:// or https:// and names a host.")
    scheme = parts["scheme"].lower()
    if scheme not in {"http", "https"}:
        raise ValueError(f"The scheme {scheme} cannot be called; use http or https.")
    if "@" in parts["authority"]:
        raise ValueError("A URL must not carry credentials; send them in a header.")
    authority = _AUTHORITY.fullmatch(parts["authority"])
    if authority is None or not (authority["v6"] or authority["host"]):
        raise ValueError("The URL names no host, or not in a form that is understood.")
    host, address = _host(authority["v6"], authority["host"])
    port = 443 if scheme == "https" else 80
    if authority["port"] is not None:
        port = _port(authority["port"])
    rest = parts["rest"] if parts["rest"].startswith("/") else f"/{parts['rest']}"
    try:
        # Every printable ASCII character stays as the user wrote it; the rest becomes UTF-8 in percent signs.
        rest = rest if rest.isascii() else quote(rest, safe=_ASCII_PRINTABLE)
    except UnicodeEncodeError:
        raise ValueError("The URL contains half a character (a lone surrogate).") from None
    return TargetUrl(scheme, host, port, rest, address)


def literal_address(host: str) -> Address | None:
    """``host`` as an address, if any resolver would take it for one; None when it is a name.

    Understands what ``inet_aton`` and ``getaddrinfo`` do: one to four numbers, decimal, octal or hexadecimal,
    the last filling what is left (``127.1``, ``0x7f.1``, ``2130706433``, ``017700000001``); digits and dots of
    other scripts and in circles; IPv6 with or without brackets.
    """
    text = _ascii_digits(unicodedata.normalize("NFKC", host.translate(_DOTS)).translate(_DOTS))
    text = text.removeprefix("[").removesuffix("]").removesuffix(".")
    if ":" in text:
        try:
            return IPv6Address(text.partition("%")[0])
        except ValueError:
            return None
    return _inet_aton(text)


def is_public(address: Address | str) -> str | None:
    """Why ``address`` is not a public one, in one sentence; None when it is."""
    address = ip_address(address) if isinstance(address, str) else address
    for each in (address, *carried(address)):
        if reason := not_public(each):
            return reason
    return None


def carried(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address carries inside, and to which a gateway may lead.

    IPv4-mapped (RFC 4291), IPv4-compatible and SIIT (RFC 2765), NAT64 (RFC 6052), 6to4 (RFC 3056) and Teredo
    (RFC 4380: the server, and the client in complement).
    """
    if isinstance(address, IPv4Address) or address in _NOT_WRAPPERS:
        return ()
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    if any(address in network for network in _IN_LOW_BITS):
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


def not_public(address: Address) -> str | None:
    """As ``is_public``, but blind to an address carried inside."""
    if address in METADATA:
        return f"{address} serves the metadata of a cloud."
    if isinstance(address, IPv4Address):
        return _found(address, _SPECIAL_V4)
    if address.ipv4_mapped or address in _NAT64:
        # Other spellings of an IPv4 address: the kernel or the network's own gateway dials what is inside.
        return None
    if address in _GLOBAL_V6:
        return _found(address, _SPECIAL_V6)
    return _found(address, _NAMED_V6) or f"{address} is not a global unicast address."


def _found(address: Address, table: tuple[tuple[Network, str], ...]) -> str | None:
    for network, name in table:
        if address in network:
            return f"{address} is {name}."
    return None


def _host(v6: str | None, host: str) -> tuple[str, Address | None]:
    if v6 is not None:
        try:
            address: Address | None = IPv6Address(v6)
        except ValueError:
            raise ValueError(f"[{v6}] is not an IPv6 address.") from None
        return str(address), address
    if not host.isascii():
        # Also digits in circles and of other scripts, which some resolvers turn into addresses.
        raise ValueError("The host has characters outside ASCII; write it in its xn-- form.")
    address = literal_address(host)
    if address is not None:
        return str(address), address
    name = host.removesuffix(".").lower()
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("The host is neither a name (letters, digits, hyphens, dots) nor an address.")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("The host ends in a number but is not an IPv4 address.")
    return name, None


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError("The port is a number from 1 to 65535.")
    return int(text)


def _ascii_digits(text: str) -> str:
    if text.isascii():
        return text
    digits = (unicodedata.digit(character, None) for character in text)
    return "".join(
        character if digit is None else str(digit) for character, digit in zip(text, digits, strict=True)
    )


def _inet_aton(text: str) -> IPv4Address | None:
    parts = text.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        numbers = [_number(part) for part in parts]
    except ValueError:
        return None
    *front, last = numbers
    if any(number > 255 for number in front) or last >= 256 ** (4 - len(front)):
        return None
    value = last
    for position, number in enumerate(front):
        value += number << (24 - 8 * position)
    return IPv4Address(value)


def _number(text: str) -> int:
    if text[:2] in {"0x", "0X"}:
        return int(text, 16)
    return int(text, 8 if text.startswith("0") else 10)
