"""Which addresses callbacks may dial, and which URLs may name them."""

from ipaddress import ip_address, ip_network

import pytest

from jobsched.callback.guard import Guard
from jobsched.domain.targets import check_url, is_public, literal_address, parse_url

BAD = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1",
    "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1",
    "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:168.63.129.16", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "2620:4f:8000::1",
    "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1",
    "ff02::1", "ffff::1",
]  # fmt: skip
GOOD = [
    "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "169.253.0.1",
    "168.63.129.17", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2600::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("address", BAD)
def test_what_is_not_public_is_refused_with_a_sentence(address):
    reason = Guard().check_address(address)
    assert reason is not None
    assert reason.endswith(".")
    assert is_public(address.partition("%")[0]) is not None


@pytest.mark.parametrize("address", GOOD)
def test_public_addresses_pass(address):
    assert Guard().check_address(address) is None
    assert is_public(address) is None


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "1.2.3.4.5", "[::1]"])
def test_what_is_no_plain_address_is_refused(text):
    assert Guard().check_address(text) is not None


def guard(*networks: str) -> Guard:
    return Guard([ip_network(network) for network in networks])


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (["127.0.0.0/8"], "127.0.0.1"),
        (["127.0.0.0/8"], "::ffff:127.0.0.1"),
        (["::ffff:127.0.0.0/104"], "127.0.0.1"),
        (["::1/128"], "::1"),
        (["10.0.0.0/8"], "64:ff9b::10.0.0.1"),
        (["2002::/16", "10.0.0.0/8"], "2002:a00:1::"),
        (["169.254.169.254/32"], "169.254.169.254"),
        (["169.254.169.254/32"], "::ffff:169.254.169.254"),
        (["169.254.169.254/32"], "64:ff9b::a9fe:a9fe"),
        (["168.63.129.16/32"], "168.63.129.16"),
        (["fd00:ec2::254/128"], "fd00:ec2::254"),
    ],
)
def test_the_operator_can_allow_networks(networks, address):
    assert Guard().check_address(address) is not None
    assert guard(*networks).check_address(address) is None


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (["0.0.0.0/0", "::/0"], "169.254.169.254"),
        (["169.254.0.0/16"], "169.254.169.254"),
        (["169.254.169.254/31"], "169.254.169.254"),
        (["168.63.129.0/24"], "168.63.129.16"),
        (["fd00::/8"], "fd00:ec2::254"),
        (["0.0.0.0/0", "::/0"], "::ffff:169.254.169.254"),
        (["0.0.0.0/0", "::/0"], "64:ff9b::a9fe:a9fe"),
        (["0.0.0.0/0", "::/0"], "2002:a9fe:a9fe::1"),
        (["64:ff9b::/96"], "64:ff9b::10.0.0.1"),
        (["10.0.0.0/8"], "2002:a00:1::"),
        (["127.0.0.0/8"], "::1"),
        (["127.0.0.0/8"], "0.0.0.0"),
    ],
)
def test_an_allowed_network_opens_neither_metadata_nor_what_is_wrapped_in_it(networks, address):
    assert guard(*networks).check_address(address) is not None


def test_a_remembered_answer_is_the_same_answer():
    checked = guard("10.0.0.0/8")
    assert [checked.check_address("10.0.0.1"), checked.check_address("10.0.0.1")] == [None, None]
    assert checked.check_address("11.0.0.1") == checked.check_address("11.0.0.1")
    assert (
        checked.check_address("127.0.0.1")
        == checked.check_address("127.0.0.1")
        == ("127.0.0.1 is a loopback address.")
    )


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"), ("127.1", "127.0.0.1"), ("127.0.1", "127.0.0.1"), ("0x7f.1", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"), ("2130706433", "127.0.0.1"), ("017700000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"), ("127.0.0.1.", "127.0.0.1"), ("0", "0.0.0.0"), ("0.0", "0.0.0.0"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"), ("１２７.0.0.1", "127.0.0.1"), ("127。0。0。1", "127.0.0.1"),
        ("١٢٧.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("::1", "::1"), ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"), ("4294967295", "255.255.255.255"),
    ],
)  # fmt: skip
def test_every_spelling_of_an_address_is_seen_through(host, address):
    assert literal_address(host) == ip_address(address)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "localhost",
        "1.2.3.4.5",
        "256.1.1.1",
        "4294967296",
        "08",
        "1..2",
        "",
        "0x",
        "a.1",
        ":::",
    ],
)
def test_names_are_not_taken_for_addresses(host):
    assert literal_address(host) is None


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM.:443/a?b=c#d", "https://example.com/a?b=c"),
        ("http://example.com:8080?x", "http://example.com:8080/?x"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://[::FFFF:127.0.0.1]:81/", "http://[::ffff:7f00:1]:81/"),
        ("http://web_1/run", "http://web_1/run"),
        ("https://xn--bcher-kva.example/ü?q=ß%20", "https://xn--bcher-kva.example/%C3%BC?q=%C3%9F%20"),
        ("http://example.com/a/../b;c=(1),[2]", "http://example.com/a/../b;c=(1),[2]"),
    ],
)
def test_a_url_has_one_spelling(url, canonical):
    assert check_url(url) is None
    # IPv6 is spelled by the standard library, whose form of mapped addresses has changed over its versions.
    assert str(parse_url(url)).replace("::ffff:127.0.0.1", "::ffff:7f00:1") == canonical


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com", "//example.com", "ftp://example.com/", "file:///etc/passwd", "javascript:alert(1)",
        "gopher://x/", "http://", "http:///path", "http://:80/", "http://user@example.com/",
        "http://user:secret@example.com/", "http://example.com@127.0.0.1/", "http://exa mple.com/",
        "http://example.com/a b", "http://example.com/\n", "http://example.com/\tx", "http://example.com\\@evil/",
        "http://example.com/\x00", "http://example.com/\x7f", "http://example.com:0/", "http://example.com:65536/",
        "http://example.com:/", "http://example.com:８０/", "http://example.com:80:80/", "http://①②⑦.⓪.⓪.①/",
        "http://１２７.0.0.1/", "http://bücher.example/", "http://%31%32%37.0.0.1/", "http://[::1/", "http://::1/",
        "http://[fe80::1%25eth0]/", "http://[127.0.0.1]/", "http://256.1.1.1/", "http://1.2.3.4.5/", "http://a.0x7/",
        "http://-a.example/", "http://a..b/", "http://a,b/", "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 127 + "bc/", "http://example.com/" + "a" * 2048, "http://example.com/\ud800",
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused_with_a_sentence(url):
    reason = check_url(url)
    assert reason is not None
    assert reason[-1] == "."
    assert "secret" not in reason
