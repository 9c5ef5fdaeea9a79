"""REDIS_URL: everything in it is known and checked, or refused in one line that names it."""

from __future__ import annotations

import re
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from cache import CacheConfigError, CacheSettings
from cache.redis_url import DEFAULT_URL, Endpoint, parse
from cache.url_options import OPTIONS, SETTINGS
from companion.settings import Settings, SettingsError

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
PEM = ROOT / "tests" / "real" / "localhost.pem"
DOCUMENT = (ROOT / "docs" / "redis.md").read_text(encoding="utf-8")

REFUSED = {
    # options
    "redis://h?foo=bar": "foo",
    "redis://h?ssl=true": "ssl, .* rediss://",
    "redis://h?tls=1": "tls, .* rediss://",
    "redis://h?protocol=4": "protocol, .* sets itself",
    "redis://h?protocol=3": "protocol, .* sets itself",
    "redis://h?decode_responses=true": "decode_responses, .* sets itself",
    "redis://h?encoding=latin-1": "encoding, .* sets itself",
    "redis://h?encoding_errors=ignore": "encoding_errors, .* sets itself",
    "redis://h?client_name=me": "client_name, .* sets itself",
    "redis://h?retry=3": "retry, .* sets itself",
    "redis://h?timeout=3": "timeout, .* socket_timeout",
    "redis://h?host=other": "host, ",
    "redis://h?DB=1": "DB",
    "redis://h?db=1&db=1": "db twice",
    "redis://h/1?db=2": "db, and another",
    "redis://u:s3cret@h?password=s3cret2": "password, and another",
    "redis://h?password=": "option=value",
    "redis://h?s3cret": "option=value",
    "redis://h?s3cret=1&x": "option=value",
    # values
    "redis://h?db=-1": "db, .* whole number",
    "redis://h?db=zero": "db, .* whole number",
    "redis://h?db=1.5": "db, .* whole number",
    "redis://h?max_connections=0": "max_connections, .* whole number from 1",
    "redis://h?max_connections=9_9": "max_connections",
    "redis://h?socket_timeout=abc": "socket_timeout, .* seconds",
    "redis://h?socket_timeout=nan": "socket_timeout",
    "redis://h?socket_timeout=inf": "socket_timeout",
    "redis://h?socket_timeout=0": "socket_timeout",
    "redis://h?socket_timeout=-5": "socket_timeout",
    "redis://h?socket_timeout=5s": "socket_timeout",
    "redis://h?socket_connect_timeout=None": "socket_connect_timeout, .* seconds",
    "redis://h?retry_on_timeout=perhaps": "retry_on_timeout, .* true or false",
    "redis://h?health_check_interval=often": "health_check_interval, .* seconds",
    "rediss://h?ssl_cert_reqs=CERT_SOME": "ssl_cert_reqs, .* none, optional or required",
    "rediss://h?ssl_check_hostname=flase": "ssl_check_hostname, .* true or false",
    "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=true": "ssl_check_hostname",
    "rediss://h?ssl_min_version=1.0": "ssl_min_version",
    "rediss://h?ssl_ciphers=none-such": "ssl_ciphers",
    "rediss://h?ssl_exclude_verify_flags=VERIFY_ALL": "ssl_exclude_verify_flags",
    # files
    "rediss://h?ssl_ca_certs=/no/such.pem": "ssl_ca_certs, .*No such file",
    "rediss://h?ssl_ca_certs=/": "ssl_ca_certs, .*",
    f"rediss://h?ssl_ca_certs={__file__}": "ssl_ca_certs, .*",
    "rediss://h?ssl_ca_path=/no/such": "ssl_ca_path",
    "rediss://h?ssl_ca_data=junk": "ssl_ca_data",
    "rediss://h?ssl_certfile=/no/such.pem": "ssl_certfile, .*No such file",
    f"rediss://h?ssl_certfile={PEM}&ssl_keyfile=/no/such.pem": "ssl_keyfile, .*No such file",
    f"rediss://h?ssl_certfile={__file__}": "ssl_certfile",
    f"rediss://h?ssl_keyfile={PEM}": "ssl_keyfile, and not ssl_certfile",
    f"redis://h?ssl_ca_certs={PEM}": "ssl_ca_certs, .* rediss://",
    "unix:///x.sock?ssl_cert_reqs=none": "ssl_cert_reqs, .* rediss://",
    # places
    "redis://h1:6379,h2:6379/0": "several hosts",
    "redis://u:s3cret@h1,h2:6380": "several hosts",
    "redis://u:s3cret@h1:6379,u:s3cret@h2:6379/0": "several hosts",
    "redis://h1:6379,redis://h2:6379": "several hosts",
    "redis-sentinel://h:26379/mymaster": "redis-sentinel://.*Sentinel",
    "redis+sentinel://h:26379": r"master that they watch, as in redis\+sentinel://",
    "redis+sentinel:///mymaster": "hosts of the Sentinels",
    "redis+sentinel://h1,,h2/mymaster": "hosts of the Sentinels",
    "redis+sentinel://h/my%20master": "master that they watch",
    "redis+sentinel://h/mymaster/zero": "database number",
    "redis+sentinel://h/mymaster/0/1": "database number",
    "redis+sentinel://h/mymaster/1?db=2": "db, and another",
    "redis+sentinel://h1:26379,h2:port/mymaster": "from 1 to 65535",
    "redis+sentinel://h1:26379,h2:0/mymaster": "from 1 to 65535",
    "redis+sentinel://u:s3cret@h1,u:s3cret@h2/mymaster": "credentials belong before the first",
    "redis+sentinel://h/mymaster?sentinel_password=": "option=value",
    "redis+sentinel://h/mymaster?ssl_cert_reqs=none": "ssl_cert_reqs, which needs TLS",
    "redis://h?sentinel_password=s3cret": "sentinel_password, which needs Sentinels",
    "sentinel://h:26379;sentinel://h2:26379": r"sentinel://\. .*redis\+sentinel://",
    "redis+cluster://h": r"redis\+cluster://.*cluster",
    "http://u:s3cret@h": "begin with redis://",
    "localhost:6379": "begin with redis://",
    "s3cret@h": "begin with redis://",
    '"redis://h"': "begin with redis://",
    "redis:/h": "begin with redis://",
    "redis://h:0": "from 1 to 65535",
    "redis://h:65536": "from 1 to 65535",
    "redis://h:port": "from 1 to 65535",
    "redis://::1:6379": r"\[::1\]:6379",
    "redis://[::1": r"\[::1\]:6379",
    "redis://${HOST}:6379": "host",
    "redis://h/zero": "database number",
    "redis://h/1/2": "database number",
    "redis://h\n:1": "space",
    "redis://:s3 cret@h": "space",
    "redis://u:s3c/ret@h:6379": "percent-encoded",
    "redis://:12/s3cret@h:6379": "percent-encoded",
    "redis://:12?s3cret@h:6379/0": "percent-encoded",
    "redis://:12?s3c=1@h:6379/0": "percent-encoded",
    "redis://:12?scret=1@h:6379/0": "option=value.*percent-encoded",
    "redis://:12#s3cret@h:6379/0": "percent-encoded",
    "redis://:s3cret%ff@h": "UTF-8",
    "redis://:s3cret\udce9@h": "UTF-8",
    "unix:///run/a%00b": "control character",
    "unix:///run/a%0ab": "control character",
    "unix://": "three slashes",
    "unix://run/redis.sock": "three slashes",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line_that_names_it(url: str) -> None:
    with pytest.raises(CacheConfigError, match=REFUSED[url]) as refusal:
        CacheSettings(url=url)
    text = str(refusal.value)
    assert "REDIS_URL" in text
    assert "\n" not in text
    assert "s3c" not in text
    with pytest.raises(SettingsError, match=REFUSED[url]):
        Settings.from_env({"REDIS_URL": url})  # at the start of a worker


@pytest.mark.parametrize(
    ("url", "endpoint", "shown"),
    [
        ("redis://", Endpoint(), "redis://localhost:6379/0"),
        ("redis://h", Endpoint("h"), "redis://h:6379/0"),
        ("REDIS://H:1/2", Endpoint("h", 1, db=2), "redis://h:1/2"),
        ("valkey://h/3", Endpoint("h", db=3), "valkey://h:6379/3"),
        ("redis://h?db=3", Endpoint("h", db=3), "redis://h:6379/3"),
        ("redis://h/3?db=3", Endpoint("h", db=3), "redis://h:6379/3"),
        ("redis://:pw@[::1]:7/", Endpoint("::1", 7, password="pw"), "redis://[::1]:7/0"),
        ("redis://ann@h", Endpoint("h", username="ann"), "redis://h:6379/0"),
        (
            "redis://a%40b:p%2F%23%3F%40%2C+%C3%BC@h",
            Endpoint("h", username="a@b", password="p/#?@,+ü"),
            "redis://h:6379/0",
        ),
        ("redis://u:p@ss@h", Endpoint("h", username="u", password="p@ss"), "redis://h:6379/0"),
        ("redis://h?username=u&password=p%26%2B", Endpoint("h", username="u", password="p&+"), "redis://h:6379/0"),
        ("unix:///a%20b@c.sock", Endpoint(unix_path="/a b@c.sock"), "unix:///a b@c.sock"),
        (
            "unix://u:p@/x.sock?db=2",
            Endpoint(unix_path="/x.sock", username="u", password="p", db=2),
            "unix:///x.sock?db=2",
        ),
    ],
)
def test_what_can_be_used(url: str, endpoint: Endpoint, shown: str) -> None:
    settings = CacheSettings(url=url)
    assert (settings.endpoint, settings.safe_url) == (endpoint, shown)


def test_sentinels_are_named_with_their_master() -> None:
    settings = CacheSettings(
        url="redis+sentinel://u:p%40@h1:1,[::1]:2,H3/my.master-1/4?sentinel_username=ann&sentinel_password=s3c&socket_timeout=2"
    )
    assert settings.safe_url == "redis+sentinel://h1:1,[::1]:2,h3:26379/my.master-1/4"
    places = [("h1", 1), ("::1", 2), ("h3", 26379)]
    sentinels = tuple(Endpoint(*place, username="ann", password="s3c") for place in places)
    assert settings.endpoint == Endpoint(username="u", password="p@", db=4, sentinels=sentinels, master="my.master-1")
    assert "s3c" not in repr(settings.endpoint)
    assert settings.socket_timeout == 2
    tls = CacheSettings(url="valkeys+sentinel://h/m?ssl_cert_reqs=none").endpoint
    assert tls.ssl_context is not None
    assert (tls.sentinels[0].ssl_context, tls.password, tls.db) == (tls.ssl_context, None, 0)


def test_options_are_settings() -> None:
    settings = CacheSettings(
        url="redis://h?max_connections=7&socket_connect_timeout=1.5&socket_timeout=2&retry_on_timeout=no"
        "&health_check_interval=0"
    )
    assert [getattr(settings, name) for name in SETTINGS] == [7, 1.5, 2, False, 0]
    assert "max_connections=7" not in settings.safe_url
    for name, wrong in {"max_connections": 0, "socket_timeout": -1.0, "health_check_interval": 1e9}.items():
        with pytest.raises(CacheConfigError, match=name):
            CacheSettings(**{name: wrong})  # type: ignore[arg-type]  # the case under test


def context(options: str) -> ssl.SSLContext:
    endpoint = CacheSettings(url=f"rediss://h?{options}").endpoint
    assert endpoint.ssl_context is not None
    return endpoint.ssl_context


@pytest.mark.parametrize("scheme", ["rediss", "valkeys", "REDISS"])
def test_tls_checks_everything_by_default(scheme: str) -> None:
    tls = CacheSettings(url=f"{scheme}://h").endpoint.ssl_context
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("none", ["none", "NONE", "CERT_NONE", "cert_none"])
def test_tls_options_mean_what_they_say(none: str) -> None:
    tls = context(f"ssl_cert_reqs={none}")
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_NONE, False)
    tls = context("ssl_cert_reqs=CERT_OPTIONAL")
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_OPTIONAL, True)
    tls = context("ssl_check_hostname=no&ssl_min_version=TLSv1_3&ssl_ciphers=ECDHE-RSA-AES128-GCM-SHA256")
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_3
    assert "ECDHE-RSA-AES128-GCM-SHA256" in {cipher["name"] for cipher in tls.get_ciphers()}
    strict = ssl.VerifyFlags.VERIFY_X509_STRICT
    assert context("ssl_include_verify_flags=VERIFY_X509_STRICT").verify_flags & strict
    assert not context("ssl_exclude_verify_flags=VERIFY_X509_STRICT,VERIFY_CRL_CHECK_LEAF").verify_flags & strict


def test_tls_files_are_read_once(tmp_path: Path) -> None:
    authority = shutil.copy(PEM, tmp_path / "ca.pem")
    url = f"rediss://h?ssl_ca_certs={authority}&ssl_certfile={authority}"
    first = CacheSettings(url=url).endpoint.ssl_context
    assert first is not None
    assert len(first.get_ca_certs()) == 1, "the named authority replaces those of the system"
    authority.unlink()
    assert CacheSettings(url=url).endpoint.ssl_context is first, "a later cache of the process is made without the file"


def test_an_encrypted_key_prompts_for_no_password(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    text = PEM.read_bytes()
    key: Any = form.load_pem_private_key(text, None)
    locked = tmp_path / "key.pem"
    locked.write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"s3cret"))
    )
    url = f"rediss://h?ssl_certfile={PEM}&ssl_keyfile={locked}"
    for wrong in ("", "&ssl_password=s3cres"):
        with pytest.raises(CacheConfigError, match="ssl_keyfile"):
            CacheSettings(url=url + wrong)
    assert CacheSettings(url=f"{url}&ssl_password=s3cret").endpoint.ssl_context


def test_the_document_names_every_option_with_its_default() -> None:
    rows = dict(re.findall(r"(?m)^\| `(\w+)` \|([^|]*)\|", DOCUMENT))
    assert rows.keys() >= OPTIONS.keys()
    defaults = CacheSettings()
    for name in SETTINGS:
        value = getattr(defaults, name)
        assert rows[name].strip() == (str(value).lower() if isinstance(value, bool) else f"{value:g}")
    assert parse(DEFAULT_URL)[0] == Endpoint()
