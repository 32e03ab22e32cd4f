import pytest

from penstock.canon.errors import ConfigError, InvalidRequest
from penstock.transport.origin import Origin, Proxies, Proxy, locate


@pytest.mark.parametrize(
    ("url", "origin", "target", "host"),
    [
        ("http://localhost:8080/v1/chat", "http://localhost:8080", "/v1/chat", "localhost:8080"),
        ("https://api.openai.com/v1", "https://api.openai.com:443", "/v1", "api.openai.com"),
        ("http://example.com", "http://example.com:80", "/", "example.com"),
        ("http://example.com?x=1", "http://example.com:80", "/?x=1", "example.com"),
        ("http://Example.COM:80/", "http://example.com:80", "/", "example.com"),
        ("https://example.com:80/", "https://example.com:80", "/", "example.com:80"),
        ("http://[::1]:8080/a", "http://[::1]:8080", "/a", "[::1]:8080"),
        ("http://[2001:DB8::1]/a", "http://[2001:db8::1]:80", "/a", "[2001:db8::1]"),
        ("http://h/a:b/models/x:generate?alt=sse#part", "http://h:80", "/a:b/models/x:generate?alt=sse", "h"),
        ("http://h/a%20b?q=%2F", "http://h:80", "/a%20b?q=%2F", "h"),
        ("http://h/gr%C3%BC%C3%9Fe/grüße?q=ä", "http://h:80", "/gr%C3%BC%C3%9Fe/gr%C3%BC%C3%9Fe?q=%C3%A4", "h"),
        ("http://bücher.example/", "http://xn--bcher-kva.example:80", "/", "xn--bcher-kva.example"),
        ("http://h/" + "a" * 600, "http://h:80", "/" + "a" * 600, "h"),
    ],
)
def test_a_url_taken_apart(url, origin, target, host):
    location = locate(url)
    assert (str(location.origin), location.target, location.host_header) == (origin, target, host)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080/v1",
        "/v1/chat",
        "ftp://h/",
        "http:///v1",
        "http://h:x/",
        "http://h:99999/",
        "http://[::1/",
        "http://h/a b",
        "http://h/\r\nx: y",
        "http://h\t/",
        "http://h/\x7f",
        "http://user:sesame@h/",
        "http://user@h/",
    ],
)
def test_a_url_that_cannot_be_called_is_refused(url):
    with pytest.raises(InvalidRequest) as caught:
        locate(url)
    assert "sesame" not in str(caught.value)


PROXY = Proxy(Origin("http", "proxy", 3128))


def environ(**variables):
    return {"HTTP_PROXY": "http://proxy:3128", "HTTPS_PROXY": "http://proxy:3128", **variables}


@pytest.mark.parametrize(
    ("no_proxy", "host", "goes_direct"),
    [
        ("", "example.com", False),
        ("*", "example.com", True),
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com", True),
        ("Example.COM", "example.com", True),
        ("example.com", "api.example.com", True),
        (".example.com", "api.example.com", True),
        (".example.com", "example.com", True),
        ("*.example.com", "api.example.com", True),
        ("example.com", "notexample.com", False),
        ("example.com", "example.com.evil", False),
        ("example.com:8080", "example.com", True),
        ("example.com:8081", "example.com", False),
        ("other, example.com ,third", "example.com", True),
        ("other example.com", "example.com", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1:8080", "127.0.0.1", True),
        ("127.0.0.1:81", "127.0.0.1", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "ten.example", False),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("[::1]:8080", "::1", True),
        ("[::1]:81", "::1", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "10.0.0.1", False),
        ("localhost", "127.0.0.1", False),
    ],
)
def test_no_proxy(no_proxy, host, goes_direct):
    proxies = Proxies(environ(NO_PROXY=no_proxy))
    origin = Origin("http", host.lower(), 8080)
    assert proxies.choose(origin) == (None if goes_direct else PROXY)


def test_proxies_are_chosen_by_scheme_and_in_either_case():
    proxies = Proxies({"http_proxy": "one:1", "HTTP_PROXY": "http://two:2", "HTTPS_PROXY": "https://three"})
    assert proxies.choose(Origin("http", "h", 80)) == Proxy(Origin("http", "one", 1))
    assert proxies.choose(Origin("https", "h", 443)) == Proxy(Origin("https", "three", 443))


@pytest.mark.parametrize("nothing", [None, {}, {"HTTP_PROXY": ""}, {"HTTP_PROXY": "  "}])
def test_no_proxy_unless_one_is_named(nothing):
    assert Proxies(nothing).choose(Origin("http", "h", 80)) is None


def test_credentials_of_a_proxy_are_decoded_and_not_shown():
    proxy = Proxies({"HTTP_PROXY": "http://us%40er:p%3Aw@proxy:1"}).choose(Origin("http", "h", 80))
    assert proxy is not None
    assert proxy.authorization == "Basic dXNAZXI6cDp3"
    assert repr(proxy) == "<Proxy http://proxy:1>"


@pytest.mark.parametrize("value", ["socks5://sesame@h:1", "http://", "http://u:sesame@h:x", "http://[sesame"])
def test_a_proxy_of_another_kind_is_refused_without_its_credentials(value):
    with pytest.raises(ConfigError, match="HTTP_PROXY") as caught:
        Proxies({"HTTP_PROXY": value})
    assert "sesame" not in str(caught.value)
