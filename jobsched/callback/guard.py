"""The guard: which addresses callbacks may dial, given what the operator allows.

Deny unless public (jobsched.domain.targets), plus the operator's networks. It is asked three times: at the
API for literal addresses (a kind error), after every lookup (one bad address refuses the whole name), and
for the socket about to be opened, which is the guarantee: no rebinding can come between.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from jobsched.domain.targets import METADATA, carried, not_public

_REMEMBERED = 10_000


class Guard:
    """``allow``: networks that may be reached although they are not public."""

    def __init__(self, allow: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._allow = tuple(_plain(network) for network in allow)
        self._exact = frozenset(
            network.network_address for network in self._allow if network.prefixlen == network.max_prefixlen
        )
        self._known: dict[str, str | None] = {}

    def check_address(self, address: str) -> str | None:
        """Why ``address`` must not be dialled, in one sentence; None when it may be.

        What cannot be read as an address is refused. Thread-safe: the memory is only a shortcut.
        """
        try:
            return self._known[address]
        except KeyError:
            reason = self._check(address)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[address] = reason
        return reason

    def _check(self, text: str) -> str | None:
        try:
            # A zone (fe80::1%eth0) names an interface of this machine, never a public target.
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return f"{text!r} is not an address."
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            # The kernel speaks IPv4 for these, so they are judged as what they are.
            address = address.ipv4_mapped
        for each in (address, *carried(address)):
            # Both the wrapper and what it carries must be public or allowed: an open 64:ff9b::/96 must not
            # open 10.0.0.0/8 through a gateway.
            if (reason := not_public(each)) and not self._allowed(each):
                return reason
        return None

    def _allowed(self, address: IPv4Address | IPv6Address) -> bool:
        if address in METADATA:
            # 169.254.0.0/16 or 0.0.0.0/0 in a list is no wish to hand out the machine's credentials.
            return address in self._exact
        return any(address in network for network in self._allow)


def _plain(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """An IPv4-mapped network as the IPv4 network that it means, since addresses are judged so too."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return (
        network if mapped is None or network.prefixlen < 96 else IPv4Network((mapped, network.prefixlen - 96))
    )
