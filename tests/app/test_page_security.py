"""Hostile requests: refused, logged without secrets, nothing read outside the corpus."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from dataclasses import replace

import pytest
from browser import serving, until
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sammed_app.page.security import UPLOAD_PATH
from sammed_app.page.server import create_app, free
from sammed_app.page.settings import PageSettings
from sammed_data.exclude import read_list
from sammed_data.types import UsageError

TOKEN = "a-token-that-nobody-may-read"  # noqa: S105 - of this test alone
CHANGE = {"X-Sammed": "1"}


def _client(settings, host="127.0.0.1"):
    return TestClient(create_app(settings), base_url=f"http://{host}:{settings.port}")


@pytest.fixture
def client(settings):
    return _client(settings)


@pytest.fixture(scope="module")
def raw(world, tmp_path_factory):
    """Sends bytes as they are to a running page and gives the first of the answer."""
    secret = tmp_path_factory.mktemp("outside") / "secret.txt"
    secret.write_text("the-secret")
    settings = PageSettings(corpus=world.corpus, results=world.results, port=_free())
    with serving(settings):

        def sent(data: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", settings.port), timeout=10) as line:
                line.sendall(data)
                line.settimeout(10)
                found = b""
                with contextlib.suppress(TimeoutError, ConnectionResetError):
                    while part := line.recv(65536):
                        found += part
                return found

        sent.secret = secret
        yield sent


def _free() -> int:
    from browser import free_port

    return free_port()


def _get(path: bytes, *headers: bytes) -> bytes:
    lines = [b"GET " + path + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"", b""])


def test_a_taken_port_is_a_sentence(settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.port))
        taken.listen()
        with pytest.raises(UsageError, match="another --port"):
            free(settings)


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "path",
    [
        b"/../../../etc/passwd",
        b"/static/../../settings.py",
        b"/static/%2e%2e/settings.py",
        b"/static/..%2fsettings.py",
        b"/static/%2e%2e%2fsettings.py",
        b"/static/%252e%252e%252fsettings.py",
        b"/static/..%5c..%5csettings.py",
        b"/static/....//....//etc/passwd",
        b"/static//etc/passwd",
        b"//etc/passwd",
        b"/static/app.js%00.png",
        b"/static/%c0%ae%c0%ae/settings.py",
        b"/static/settings.py",
        b"/api/corpus/rows/..%2f..%2fmanifest.json",
        b"/api/corpus/rows/%2Fetc%2Fpasswd/image.png",
        b"/api/results/gallery/..%2fbench.json.png",
        b"/api/results/report/../../bench.json",
        b"/api/corpus/rows/1e3",
        b"/api/corpus/rows/-1",
        b"/api/corpus/rows/99999999999999999999999999",
        b"/" + b"a" * 5000,
        b"/api/corpus/rows?q=" + b"a" * 5000,
        b"http://evil.example/etc/passwd",
        b"file:///etc/passwd",
    ],
)
def test_no_path_leads_out(raw, path):
    answer = raw(_get(path))
    assert _status(answer) in (400, 404, 414, 422), answer[:200]
    assert b"root:" not in answer
    assert b"PageSettings" not in answer
    assert b"schema_version" not in answer


def test_names_are_looked_up_and_never_opened(client, raw):
    for name in (str(raw.secret), f"../{raw.secret}", "/etc/passwd", "corpus/manifest.json"):
        answer = client.get("/api/corpus/find", params={"sample_id": name})
        assert answer.json() == {"number": None}
        answer = client.get("/api/corpus/rows", params={"q": name})
        assert answer.json()["total"] == 0
        answer = client.get("/api/corpus/rows", params={"dataset": name})
        assert answer.status_code == 400
        assert "the-secret" not in answer.text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil", "", "0.0.0.0",
     "127.0.0.1@evil", "[::1", "169.254.169.254", "127.0.0.1:80:80", "2130706433"],
)  # fmt: skip
def test_a_name_that_was_bent_to_this_machine_is_refused(client, host, caplog):
    answer = client.get("/api/corpus/rows", headers={"Host": host})
    assert answer.status_code == 421
    assert "refused GET /api/corpus/rows" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8765"])
def test_the_names_of_this_machine_do(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_two_host_headers_are_one_too_many(raw):
    answer = raw(_get(b"/api/about", b"Host: evil.example"))
    assert _status(answer) in (400, 421)


@pytest.mark.parametrize("path", ["/api/corpus/rows", "/api/results/rows", "/api/about"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_another_origin_reads_nothing(client, path, headers, caplog):
    answer = client.get(path, headers=headers)
    assert answer.status_code == 403
    assert set(answer.json()) == {"error"}
    assert "access-control-allow-origin" not in answer.headers
    assert "refused" in caplog.text


def test_another_origin_changes_nothing(client, settings):
    own = f"http://127.0.0.1:{settings.port}"
    body = {"reason": "mischief"}
    flag = "/api/corpus/rows/0/flag"
    form = {"Content-Type": "text/plain"}  # what a form of another site may send unasked
    for headers in (
        {},
        form,
        {"Origin": own},
        {"Origin": "http://evil.example"} | CHANGE,
        {"Sec-Fetch-Site": "cross-site"} | CHANGE,
    ):
        assert client.post(flag, content=json.dumps(body), headers=headers).status_code == 403
        assert client.delete(flag, headers=headers).status_code == 403
    assert client.options(flag, headers={"Origin": "http://evil.example"}).status_code == 405
    assert not settings.exclude.exists()
    assert client.post(flag, json=body, headers=CHANGE | {"Origin": own}).status_code == 200
    assert len(read_list(settings.exclude)) == 1


def test_giant_bodies_are_refused_by_what_they_say_and_by_what_they_send(raw, client):
    head = [b"POST /api/corpus/rows/0/flag HTTP/1.1", b"Host: localhost", b"X-Sammed: 1"]
    head += [b"Content-Type: application/json", b"Connection: close"]
    for said in (b"99999999999", b"9" * 40):
        answer = raw(b"\r\n".join([*head, b"Content-Length: " + said, b"", b"{"]))
        assert _status(answer) in (400, 413)
    for said in (b"-5", b"0x10", b"1e9", b"1, 1000000000"):
        answer = raw(b"\r\n".join([*head, b"Content-Length: " + said, b"", b"{"]))
        assert _status(answer) == 400
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    data = b"\r\n".join([*head, b"Transfer-Encoding: chunked", b"", b""]) + chunk * 4 + b"0\r\n\r\n"
    assert _status(raw(data)) == 413
    # The route of uploads has a limit of its own.
    upload = head[0].replace(b"/api/corpus/rows/0/flag", UPLOAD_PATH.encode())
    lines = [upload, *head[1:], b"Content-Length: 99999999999", b"", b"x"]
    assert _status(raw(b"\r\n".join(lines))) == 413
    kind = CHANGE | {"Content-Type": "application/json"}
    answer = client.post("/api/corpus/rows/0/flag", content="[" * 20000, headers=kind)
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize("body", ['{"reason": NaN}', '{"reason": [1e999]}', '{"reason": ', "NaN"])
def test_numbers_that_json_does_not_have_are_a_wrong_request(client, settings, body):
    kind = CHANGE | {"Content-Type": "application/json"}
    answer = client.post("/api/corpus/rows/0/flag", content=body, headers=kind)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("the request is not understood: body")
    assert not settings.exclude.exists()


@pytest.mark.parametrize(
    "body",
    [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x" * 301}, {"reason": "a\x1b[31mb"},
     {"reason": "fine", "withdrawn": True}, {"reason": ["a"]}, {"reason": None}, [], "x"],
)  # fmt: skip
def test_a_reason_is_a_line_of_text(client, settings, body):
    answer = client.post("/api/corpus/rows/0/flag", json=body, headers=CHANGE)
    assert answer.status_code in (400, 422)
    assert not settings.exclude.exists()


def test_a_reason_cannot_write_other_lines(client, settings):
    said = 'x",0\npatient,phantom_ct,p1,all of them,1'
    answer = client.post("/api/corpus/rows/0/flag", json={"reason": said}, headers=CHANGE)
    assert answer.status_code == 200
    (entry,) = read_list(settings.exclude)
    assert (entry.level, entry.withdrawn) == ("sample", False)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "OPTIONS", "PROPFIND"])
def test_other_methods_are_refused(client, method):
    assert client.request(method, "/api/about").status_code == 405


def test_no_web_socket(client):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/about"):
        pass


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/about", "/api/none", "/none"])
def test_every_answer_carries_the_headers(client, path):
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_the_report_runs_in_a_box(client):
    policy = client.get("/api/results/report").headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy  # default-src 'none' holds
    assert "script-src 'sha256-" in policy


def test_off_loopback_everything_asks_for_the_token(settings, caplog):
    client = _client(replace(settings, host="0.0.0.0", token=TOKEN), host="10.1.2.3")  # noqa: S104
    caplog.set_level(logging.DEBUG)
    for path in ("/", "/static/app.js", "/api/about", "/api/corpus/rows/0/image.png"):
        assert client.get(path).status_code == 401
    for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", "é"):
        assert client.get("/", params={"token": wrong}).status_code == 401
        bearer = {"Authorization": f"Bearer {wrong}".encode()}
        assert client.get("/api/about", headers=bearer).status_code == 401
    cookie = f"sammed_token_{settings.port + 1}={TOKEN}"
    assert client.get("/api/about", headers={"Cookie": cookie}).status_code == 401
    assert client.get("/api/about", params={"token": TOKEN}).status_code == 401  # the page alone

    opened = client.get("/", params={"token": TOKEN}, follow_redirects=False)
    assert opened.status_code == 303
    assert opened.headers["location"] == "/"
    for part in ("HttpOnly", "SameSite=Strict"):
        assert part in opened.headers["set-cookie"]
    assert client.get("/api/about").status_code == 200  # by the cookie
    evil = {"Origin": "http://evil.example"}
    assert client.get("/api/about", headers=evil).status_code == 403  # cookie or not
    client.cookies.clear()
    assert client.get("/api/about", headers=evil).status_code == 401
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/about", headers=evil | bearer).status_code == 200
    said = [r.getMessage() for r in caplog.records if not r.name.startswith("httpx")]  # the client
    assert not [line for line in said if TOKEN[:-1] in line]
    assert [line for line in said if line.startswith("refused GET /: 401")]


def test_the_printed_address_opens_everything_in_a_browser(open_page, settings):
    page, base = open_page(replace(settings, token=TOKEN))
    page.goto(f"{base}/?token={TOKEN}")
    page.wait_for_selector("a.card")
    assert TOKEN not in page.url
    until(page, "document.querySelector('a.card img').naturalWidth > 0")
    page.goto(f"{base}/#/corpus/row/0")
    page.fill("#reason", "a reason")
    page.click("#flag")
    page.wait_for_selector("#unflag")
    page.goto(f"{base}/#/results/report")
    assert page.frame_locator("iframe.report").locator("h1").inner_text() == "Benchmark"
    assert TOKEN not in page.evaluate("document.cookie")


def test_refusals_are_one_line_each_whatever_the_path(raw, caplog):
    raw(_get(b"/%0d%0arefused%20GET%20/fake%1b[2J..%2f"))
    lines = [r.getMessage() for r in caplog.records if r.name == "sammed.page"]
    assert len(lines) == 1
    assert lines[0].isprintable()


def test_a_page_off_loopback_makes_a_token(tmp_path, monkeypatch, world, capsys):
    from typer.testing import CliRunner

    import sammed
    from sammed_app.page import server

    served = []
    monkeypatch.setattr(server, "serve", served.append)
    monkeypatch.chdir(tmp_path)
    asked = ["app", "--corpus", str(world.corpus)]
    assert CliRunner().invoke(sammed.app, asked).exit_code == 0
    result = CliRunner().invoke(sammed.app, [*asked, "--host", "0.0.0.0"])  # noqa: S104
    assert result.exit_code == 0, result.output
    CliRunner().invoke(sammed.app, [*asked, "--token"])
    own, public, wished = served
    assert own.token == ""
    assert len(public.token) >= 32
    assert public.token in result.output
    assert wished.token not in ("", public.token)


def test_nothing_to_show_is_a_sentence(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    import sammed

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(sammed.app, ["app"])
    assert isinstance(result.exception, UsageError)
    assert "sammed demo" in str(result.exception)


def test_without_the_extra_the_verb_says_how_to_get_it(monkeypatch):
    import sys

    from typer.testing import CliRunner

    import sammed

    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = CliRunner().invoke(sammed.app, ["app"])
    assert isinstance(result.exception, UsageError)
    assert "pip install 'sammed[app]'" in str(result.exception)


def test_results_alone_find_the_corpus_they_are_about(tmp_path, monkeypatch, world):
    from typer.testing import CliRunner

    import sammed
    from sammed_app.page import server

    served = []
    monkeypatch.setattr(server, "serve", served.append)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(sammed.app, ["app", "--results", str(world.results), "--json"])
    assert result.exit_code == 0, result.output
    assert served[0].corpus == world.corpus
    assert json.loads(result.stdout)["open"] == "http://127.0.0.1:8765/"
