"""The one way to a user's URL: it goes to the address that was judged, within limits, and to nothing else."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.streams.tls import TLSListener
from callback_parts import Names, NotedNetwork, answer, drip, nobody_listening, receiving, silence, until

from tunesmith.errors import InvalidInput, MissingReference, TooLarge
from tunesmith.net.guarded import LONGEST_ANSWER, GuardedClient

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.216.34"
METADATA = "169.254.169.254"


async def posted(url: str, **options):
    client = GuardedClient(**{"allow_private": True, "post_seconds": 60.0, **options})
    try:
        return await client.post(url, b"{}", {"webhook-id": "x"})
    finally:
        await client.aclose()


async def fetched(url: str, into: Path, *, max_bytes: int = 1_000_000, expect_sha256: str | None = None, **options):
    client = GuardedClient(**{"allow_private": True, "download_seconds": 60.0, **options})
    try:
        return await client.download(url, into, max_bytes=max_bytes, expect_sha256=expect_sha256)
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "ⓛocalhost",
        "0",
        "0.0.0.0",
        "[::]",
    ],
)
async def test_no_spelling_of_loopback_gets_through(host):
    """Whatever the system's resolver makes of it: refused when named and when sent to, and nothing connects."""
    async with receiving() as sentinel:
        client = GuardedClient(allow_private=False)
        for call in (client.vet, lambda url: client.post(url, b"", {})):
            with pytest.raises(InvalidInput):
                await call(f"http://{host}:{sentinel.port}/")
        await client.aclose()
        assert sentinel.connections == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "0"])
async def test_the_address_that_a_receiver_listens_on_means_this_machine(host):
    """`http://0.0.0.0:9000/` is how many programs print where they are: it goes to loopback, where that is allowed."""
    async with receiving() as receiver:
        network = NotedNetwork(receiver.port)
        assert (await posted(f"http://{host}:{receiver.port}/hook", network=network)).status == 200
        assert network.connected == [f"127.0.0.1:{receiver.port}"]


@pytest.mark.parametrize(
    "address",
    [METADATA, "fe80::a9fe:a9fe", "fd00:ec2::254", "100.100.100.200", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe"],
)
async def test_metadata_is_out_of_reach_even_where_private_addresses_are_allowed(address):
    """By address and by a name that resolves to it; the error says which address, where and the mend."""
    names = Names({"inside.example": [[address]]})
    network = NotedNetwork(9)
    with pytest.raises(InvalidInput) as caught:
        await posted("http://inside.example/", resolver=names, network=network)
    assert caught.value.where == "inside.example"
    assert caught.value.mend
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidInput):
        await posted(f"http://{host}/", network=network)
    assert network.connected == []


async def test_one_bad_address_spoils_a_name():
    """Every address is judged, not only the first."""
    names = Names({"mixed.example": [[PUBLIC, "2606:4700::1111", METADATA]]})
    network = NotedNetwork(9)
    with pytest.raises(InvalidInput, match=METADATA):
        await posted("http://mixed.example/", allow_private=False, resolver=names, network=network)
    assert network.connected == []


async def test_a_name_is_resolved_once_and_the_connection_goes_to_the_judged_address():
    """Rebinding: the second answer would be metadata; it is never asked for while the connection lives, and refused after."""
    async with receiving() as receiver:
        names = Names({"rebinds.example": [[PUBLIC], [METADATA]]})
        network = NotedNetwork(receiver.port)
        client = GuardedClient(allow_private=False, resolver=names, network=network)
        for _ in range(3):
            assert (await client.post("http://rebinds.example/", b"{}", {})).status == 200
        assert network.connected == [f"{PUBLIC}:80"]
        assert names.asked == ["rebinds.example"]
        assert receiver.got[0].headers["host"] == "rebinds.example"
        await client.aclose()
        with pytest.raises(InvalidInput):
            await client.post("http://rebinds.example/", b"{}", {})
        await client.aclose()
        assert network.connected == [f"{PUBLIC}:80"]


async def test_the_next_address_is_tried_when_one_is_down(free_port):
    """A name with a dead and a living address is reachable."""

    class FirstIsDown(NotedNetwork):
        async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):  # noqa: ASYNC109
            self._port = free_port if host == "1.1.1.1" else receiver.port
            return await super().connect_tcp(host, port, timeout, local_address, socket_options)

    async with receiving() as receiver:
        network = FirstIsDown(0)
        names = Names({"two.example": [["1.1.1.1", PUBLIC]]})
        assert (await posted("http://two.example/", resolver=names, network=network)).status == 200
        assert network.connected == ["1.1.1.1:80", f"{PUBLIC}:80"]


@pytest.fixture
def free_port() -> Iterator[int]:
    with nobody_listening() as port:
        yield port


async def test_the_certificate_must_be_for_the_name_though_the_connection_goes_to_the_address(tmp_path):
    """TLS checks the name of the URL, not the pinned address; another name's certificate is refused."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    await anyio.run_process([*command, "-keyout", str(key), "-out", str(certificate), *subject])
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    names = Names({"hooks.example": [[PUBLIC]], "other.example": [[PUBLIC]]})

    async def handle(stream):
        async with stream:
            await stream.receive()
            await stream.send(answer(204))

    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = TLSListener(plain, server_side, standard_compatible=False)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, handle)
        network = NotedNetwork(plain.extra(anyio.abc.SocketAttribute.local_port))
        trust = ssl.create_default_context(cafile=certificate)
        options = {"allow_private": False, "resolver": names, "network": network}
        assert (await posted("https://hooks.example/", tls=trust, **options)).status == 204
        with pytest.raises(MissingReference, match="Hostname mismatch"):
            await posted("https://other.example/", tls=trust, **options)
        with pytest.raises(MissingReference, match="self-signed"):
            await posted("https://hooks.example/", **options)
        assert network.connected == [f"{PUBLIC}:443"] * 3
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x",
        "file:///etc/passwd",
        "gopher://example.org/",
        "//example.org/",
        "/etc/passwd",
        "",
        "http://",
        "http:///x",
        "http://user:secret@example.org/",
        "http://example.org\\@127.0.0.1/",
        "http://example.org:0/",
        "http://example.org:99999/",
        "http://exa\tmple.org/",
        "http://exam\r\nple.org/",
        "http://[::1/",
        "http://" + "a" * 100_000,
    ],
)
async def test_what_is_no_plain_http_url_is_refused_when_it_is_named(url):
    """Other schemes, user names, impossible ports, characters that parsers disagree about."""
    for call in (GuardedClient(allow_private=True).vet, posted):
        with pytest.raises(InvalidInput) as caught:
            await call(url)
        assert "secret" not in str(caught.value)


async def test_a_name_that_does_not_resolve_yet_passes_the_first_look():
    """A receiver may come up later; only what must never be reached is refused at once."""
    names = Names({"bad.example": [[METADATA]]})
    client = GuardedClient(allow_private=True, resolver=names)
    await client.vet("https://not-yet.example/hook")
    with pytest.raises(InvalidInput):
        await client.vet("https://bad.example/hook")
    with pytest.raises(MissingReference, match="does not resolve"):
        await client.post("https://not-yet.example/hook", b"", {})
    await client.aclose()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_post_follows_no_redirect(status):
    """The redirect is the answer; where it points sees nothing."""
    async with receiving() as sentinel, receiving(answer(status, location=sentinel.url)) as receiver:
        assert (await posted(receiver.url)).status == status
        assert sentinel.connections == 0


async def test_a_download_judges_every_redirect(tmp_path):
    """To metadata, to a private address, to another scheme or to user names: refused, and nobody there is asked."""
    async with receiving() as sentinel:
        for location in (f"http://{METADATA}/latest", sentinel.url, "http://inside.example/", "file:///etc/passwd"):
            async with receiving(answer(302, location=location)) as receiver:
                network = NotedNetwork(receiver.port)
                names = Names({"start.example": [[PUBLIC]], "inside.example": [[METADATA]]})

                async def resolve(host: str, port: int, names=names) -> list[str]:
                    return [host] if host[0].isdigit() else await names(host, port)

                with pytest.raises(InvalidInput):
                    await fetched(
                        "http://start.example/", tmp_path / "x", allow_private=False, resolver=resolve, network=network
                    )
                assert network.connected == [f"{PUBLIC}:80"]
        assert sentinel.connections == 0
    assert list(tmp_path.iterdir()) == []


async def test_five_redirects_are_followed_and_no_more(tmp_path):
    """Relative ones, too."""
    hop = answer(302, location="/next?page=2")
    async with receiving(*[hop] * 5, answer(200, b"rows")) as receiver:
        assert (await fetched(receiver.url, tmp_path / "rows")).bytes == 4
        assert receiver.got[-1].line == "GET /next?page=2 HTTP/1.1"
    async with receiving(hop) as receiver:
        with pytest.raises(InvalidInput, match="redirects more than 5 times"):
            await fetched(receiver.url, tmp_path / "never")
        assert len(receiver.got) == 6


_THROUGH_PROXY = """
import sys, anyio
from tunesmith.net.guarded import GuardedClient
async def main():
    client = GuardedClient(allow_private=True)
    print((await client.post(sys.argv[1], b"{}", {})).status)
    await client.aclose()
anyio.run(main)
"""


async def test_proxy_variables_are_ignored():
    """A proxy would resolve names itself, behind the guard's back."""
    async with receiving() as proxy, receiving() as receiver:
        variables = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), proxy.url)
        child = await anyio.run_process(
            [sys.executable, "-c", _THROUGH_PROXY, receiver.url],
            env={**os.environ, **variables, "no_proxy": "", "NO_PROXY": ""},
            stderr=sys.stderr,
        )
        assert child.stdout.split() == [b"200"]
        assert proxy.connections == 0


async def test_of_an_answer_64_kib_are_read():
    """However much there is, and however it is announced."""
    sent = 0

    async def endless(stream) -> None:
        nonlocal sent
        await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536

    async with receiving(endless) as receiver:
        got = await posted(receiver.url)
        assert got.status == 200
        assert got.body == b"x" * LONGEST_ANSWER
        assert sent < 32 * 1024 * 1024  # what the kernel's buffers hold
    async with receiving(answer(500, b"y" * 100_000)) as receiver:
        assert len((await posted(receiver.url)).body) == LONGEST_ANSWER


async def test_the_time_limit_covers_everything():
    """A slow drip and a silent server end in time, though no single read is slow or there is none."""
    for behaviour in (drip, silence):
        async with receiving(behaviour) as receiver:
            began = time.monotonic()
            with pytest.raises(MissingReference, match=r"within 0\.3 seconds"):
                await posted(receiver.url, post_seconds=0.3)
            assert time.monotonic() - began < 30  # the drip alone would take hours


async def test_a_broken_answer_is_an_error_that_says_so():
    """No HTTP, cut off, a header without end: never anything but our error."""

    async def nonsense(stream) -> None:
        await stream.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    async def cut(stream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf")

    async def long_head(stream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await stream.send(b"x-more: " + b"x" * 10_000 + b"\r\n")

    async def hang_up(stream) -> None:
        del stream

    for behaviour in (nonsense, cut, long_head, hang_up):
        async with receiving(behaviour) as receiver:
            with pytest.raises(MissingReference, match="no whole answer came"):
                await posted(receiver.url)


async def test_a_file_arrives_whole_with_its_hash(tmp_path):
    """Announced or chunked; a file that was there is replaced."""
    content = os.urandom(3_000_000)
    digest = hashlib.sha256(content).hexdigest()
    into = tmp_path / "rows.jsonl"
    into.write_text("old")

    async def chunked(stream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await stream.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))

    async with receiving(answer(200, content), chunked) as receiver:
        for _ in range(2):
            got = await fetched(receiver.url, into, max_bytes=len(content), expect_sha256=digest.upper())
            assert (got.path, got.bytes, got.sha256) == (into, len(content), digest)
            assert into.read_bytes() == content
    assert list(tmp_path.iterdir()) == [into]


async def test_what_cannot_be_fetched_whole_leaves_nothing(tmp_path):
    """Too large (announced or not), wrong hash, not found, cut off, compressed, too slow: the old file stays as it was."""
    into = tmp_path / "rows.jsonl"
    into.write_text("old")

    async def growing(stream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await stream.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    async def cut(stream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nhalf")

    async def announced(stream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")

    cases = [
        (announced, TooLarge, "more than 1000000 bytes"),
        (growing, TooLarge, "more than 1000000 bytes"),
        (answer(200, b"other"), InvalidInput, "sha256"),
        (answer(404), MissingReference, "404"),
        (answer(206, b"part"), MissingReference, "206"),
        (cut, MissingReference, "no whole answer"),
        (answer(200, b"..", content_encoding="gzip"), InvalidInput, "compressed"),
        (drip, MissingReference, "within 0.5 seconds"),
    ]
    for reply, kind, text in cases:
        limit = 0.5 if reply is drip else 60.0
        async with receiving(reply) as receiver:
            with pytest.raises(kind, match=text) as caught:
                await fetched(f"{receiver.url}?token=s3cret", into, expect_sha256="0" * 64, download_seconds=limit)
            assert "s3cret" not in str(caught.value)
            assert receiver.url in str(caught.value)
        assert [into] == list(tmp_path.iterdir())
        assert into.read_text() == "old"


async def test_a_cancelled_download_leaves_nothing(tmp_path):
    """The half file goes with whoever wanted it."""
    async with receiving(drip) as receiver, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: fetched(receiver.url, tmp_path / "rows"))
        await until(lambda: list(tmp_path.iterdir()))
        tasks.cancel_scope.cancel()
    assert list(tmp_path.iterdir()) == []


_ON_A_FULL_DISK = """
import resource, sys, anyio
from pathlib import Path
from tunesmith.errors import OutOfSpace
from tunesmith.net.guarded import GuardedClient
async def main():
    client = GuardedClient(allow_private=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        await client.download(sys.argv[1], Path(sys.argv[2]), max_bytes=10_000_000)
    except OutOfSpace as error:
        print(error)
    await client.aclose()
anyio.run(main)
"""


async def test_a_full_disk_is_an_error_of_its_own_and_leaves_nothing(tmp_path):
    """A file size limit stands in for the full disk."""
    async with receiving(answer(200, b"x" * 2_000_000)) as receiver:
        child = await anyio.run_process(
            [sys.executable, "-c", _ON_A_FULL_DISK, receiver.url, str(tmp_path / "rows")], stderr=sys.stderr
        )
    assert b"no room for the download" in child.stdout
    assert list(tmp_path.iterdir()) == []
