"""The guard of the page, asked without a server: hosts, origins, token, routes, bodies, paths."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from i2i.tools.page.guard import Guard, Message, Receive, Rules, Send

pytestmark = pytest.mark.promise("R51")
OWN = {"host": "127.0.0.1:7860"}
SAME = OWN | {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
LINK = OWN | {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answers with the body that it gets; 400 if that broke off."""
    body, more = b"", scope["type"] == "http"
    broken = False
    while more:
        message = await receive()
        broken = message["type"] == "http.disconnect"
        body += message.get("body", b"")
        more = message.get("more_body", False) and not broken
    await send(
        {"type": "http.response.start", "status": 400 if broken else 200, "headers": [(b"x-frame-options", b"ALLOW")]}
    )
    await send({"type": "http.response.body", "body": body})


def rules(folder: Path, token: str = "") -> Rules:
    return Rules(
        hosts=frozenset({"127.0.0.1", "localhost", "::1"}),
        folder=folder,
        routes={"GET": ("/", "/assets/*", "/file=*"), "POST": ("/upload", "/join")},
        files="/file=",
        uploads="/upload",
        max_upload=lambda: 100,
        token=token,
    )


class Answer:
    def __init__(self, messages: list[Message]) -> None:
        self.status: int = messages[0].get("status", 0)
        self.headers = {name.decode(): value.decode() for name, value in messages[0].get("headers", ())}
        self.body: bytes = b"".join(message.get("body", b"") for message in messages[1:])
        self.kind: str = messages[0]["type"]


def ask(
    guard: Guard,
    method: str,
    path: str,
    headers: Any = None,
    body: bytes = b"",
    kind: str = "http",
    receive: Receive | None = None,
    client: str = "127.0.0.1",
) -> Answer:
    """Returns the answer of the guard. `headers` may be pairs; the body comes in two parts, unless by `receive`."""
    path, _, query = path.partition("?")
    pairs = list(OWN.items()) if headers is None else list(headers.items()) if isinstance(headers, dict) else headers
    raw = [(name.encode(), value.encode()) for name, value in pairs]
    scope = {"type": kind, "method": method, "path": path, "query_string": query.encode(), "headers": raw}
    scope["client"] = (client, 50_000)
    if kind == "websocket":
        del scope["method"]
    half = len(body) // 2
    coming = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    sent: list[Message] = []

    async def parts() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(guard(scope, receive or parts, send))
    return Answer(sent)


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard(application, rules(tmp_path))


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:9000", "[::1]:7860"])
def test_its_own_names_come_in(guard: Guard, host: str) -> None:
    assert ask(guard, "GET", "/", {"host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:7860", "evil.example:7860", "", "127.0.0.1@evil.example", "[bad"]
)
def test_a_foreign_host_is_refused(guard: Guard, host: str) -> None:
    answer = ask(guard, "GET", "/", {"host": host})
    said = answer.body.decode()
    assert answer.status == 421 and "--allow-host NAME" in said and "evil" not in said


def test_no_host_and_two_hosts_are_refused(guard: Guard) -> None:
    assert ask(guard, "GET", "/", {}).status == 421
    assert ask(guard, "GET", "/", [*OWN.items(), ("host", "evil.example")]).status == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:7860", "file://127.0.0.1:7860"]
)
def test_a_foreign_origin_is_refused(guard: Guard, origin: str) -> None:
    assert ask(guard, "POST", "/upload", OWN | {"origin": origin}).status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_request_from_another_site_is_refused_but_a_link(guard: Guard, site: str) -> None:
    assert ask(guard, "GET", "/assets/a.js", OWN | {"sec-fetch-site": site}).status == 403
    assert ask(guard, "GET", "/", OWN | {"sec-fetch-site": site}).status == 403
    assert ask(guard, "GET", "/", LINK | {"sec-fetch-site": site}).status == 200
    assert ask(guard, "GET", "/", LINK | {"sec-fetch-site": site, "sec-fetch-dest": "iframe"}).status == 403
    assert ask(guard, "GET", "/assets/a.js", LINK | {"sec-fetch-site": site}).status == 403


def test_its_own_page_comes_in(guard: Guard) -> None:
    assert ask(guard, "POST", "/upload", SAME, b"abc").body == b"abc"


@pytest.mark.parametrize("headers", [OWN, SAME, OWN | {"origin": "http://evil.example"}])
def test_no_websocket_is_opened(guard: Guard, headers: dict[str, str]) -> None:
    assert ask(guard, "", "/", headers, kind="websocket").kind == "websocket.close"


def test_routes_that_are_not_listed_do_not_exist(guard: Guard) -> None:
    for method, path in (("GET", "/proxy=http://127.0.0.1:1"), ("POST", "/"), ("DELETE", "/"), ("GET", "/asset")):
        assert ask(guard, method, path).status == 404


def test_every_answer_forbids_frames_and_foreign_sources(guard: Guard) -> None:
    for path in ("/", "/nothing"):
        headers = ask(guard, "GET", path).headers
        assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy


def test_with_a_token_only_who_knows_it_comes_in(tmp_path: Path) -> None:
    guard = Guard(application, rules(tmp_path, token="secret"))
    for path in ("/", "/?token=", "/?token=wrong", "/?token=s", "/?token=secret2", "/assets/a.js?token=secret"):
        assert ask(guard, "GET", path).status == 401
    for cookie in ("i2i=wrong", "i2i=s", "i2i=secret2", "i2i=", "other=secret", "i2i", "\x01=;"):
        assert ask(guard, "GET", "/", OWN | {"cookie": cookie}).status == 401
    entered = ask(guard, "GET", "/?token=secret", LINK)
    assert (entered.status, entered.headers["location"]) == (303, "./")
    cookie, *flags = entered.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax"} <= set(flags)
    assert ask(guard, "GET", "/", OWN | {"cookie": f"a=b; {cookie}"}).status == 200
    assert ask(guard, "POST", "/upload", {"host": "evil.example", "cookie": cookie}).status == 421


def test_a_body_has_a_limit(guard: Guard) -> None:
    assert ask(guard, "POST", "/upload", OWN | {"content-length": "101"}).status == 413
    assert ask(guard, "POST", "/upload", OWN | {"content-length": "100"}, b"a" * 100).status == 200
    assert ask(guard, "POST", "/upload", OWN, b"a" * 101).status == 400, "of unknown length: it breaks off"
    assert ask(guard, "POST", "/join", OWN, b"1" * ((8 << 20) + 1)).status == 413
    assert ask(guard, "POST", "/upload", OWN | {"content-length": "-1"}).status == 400


@pytest.mark.parametrize(("path", "status"), [("/join", 400), ("/upload", 400)])
def test_a_body_that_does_not_come_is_not_waited_for(
    guard: Guard, path: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("i2i.tools.page.guard.BODY_SECONDS", 0.05)

    async def never() -> Message:
        await asyncio.sleep(5)
        return {"type": "http.request", "body": b"{}"}

    assert ask(guard, "POST", path, receive=never).status == status


def test_an_upload_breaks_off_when_others_have_filled_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("i2i.tools.page.guard._LOOK_BYTES", 10)
    room = iter([100, 0])
    guard = Guard(application, replace(rules(tmp_path), max_upload=lambda: next(room)))
    assert ask(guard, "POST", "/upload", body=b"a" * 30).status == 400


def test_one_visitor_does_not_take_all_places(tmp_path: Path) -> None:
    waiting: list[str] = []
    guard = Guard(
        application, replace(rules(tmp_path), joins="/join", most_waiting=16, waiting=lambda: waiting)
    )  # fmt: skip

    def join(session: str, address: str) -> int:
        answer = ask(guard, "POST", "/join", body=json.dumps({"session_hash": session}).encode(), client=address)
        waiting.extend([session] if answer.status == 200 else [])
        return answer.status

    assert [join("a", "192.0.2.1") for _ in range(3)] == [200, 200, 503]
    assert [join(str(number), "192.0.2.1") for number in range(7)] == [200] * 6 + [503]
    assert join("b", "192.0.2.2") == 200
    assert [join(str(number), "127.0.0.1") for number in range(10, 18)] == [200] * 8, "behind a proxy all have one"
    waiting.clear()
    assert join("a", "192.0.2.1") == 200
    at_once = [str(number) for number in range(20, 28)]
    for session in at_once:
        join(session, "192.0.2.3")
        waiting.clear()
    waiting.extend(at_once)
    assert join("c", "192.0.2.3") == 503


OUTSIDE = [
    "/etc/passwd",
    "../../etc/passwd",
    "etc/passwd",
    "",
    "http://127.0.0.1:1/x",
    "file:///etc/passwd",
    "/\0",
    3,
    [],
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_outside_of_the_folder_is_named(guard: Guard, tmp_path: Path, path: Any) -> None:
    inside = str(tmp_path / "a.png")
    for document in ({"path": path}, {"data": [[{"deep": {"path": path, "meta": {}}}], {"path": inside}]}):
        assert ask(guard, "POST", "/join", OWN, json.dumps(document).encode()).status == 403
    address = f"/file={path}" if isinstance(path, str) else path
    for url in (path, address):
        assert ask(guard, "POST", "/join", OWN, json.dumps({"path": inside, "url": url}).encode()).status == 403
    if isinstance(path, str):
        assert ask(guard, "GET", f"/file={path}").status == 404
        assert ask(guard, "GET", f"/file={tmp_path}/../{path}").status == 404


def test_a_folder_beside_it_and_dots_in_an_address_are_outside(guard: Guard, tmp_path: Path) -> None:
    beside = f"{tmp_path}-beside/a.png"
    assert ask(guard, "GET", f"/file={beside}").status == 404
    inside = {"path": f"{tmp_path}/a.png"}
    for url in (f"/file={beside}", f"/file={tmp_path}/%2e%2e/a.png", f"/file={tmp_path}/..%2fa.png"):
        assert ask(guard, "POST", "/join", OWN, json.dumps(inside | {"url": url}).encode()).status == 403


def test_links_out_of_the_folder_lead_nowhere(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert ask(guard, "GET", f"/file={tmp_path}/link/passwd").status == 404
    assert ask(guard, "GET", f"/file={tmp_path}/a.png").status == 200


def test_its_own_files_may_be_named(guard: Guard, tmp_path: Path) -> None:
    path = f"{tmp_path}/a%b.png"
    for url in (None, f"/file={path.replace('%', '%25')}", f"http://127.0.0.1:7860/file={tmp_path}/a.png"):
        body = json.dumps({"data": [{"path": path, "url": url}, {"path": None}]}).encode()
        answer = ask(guard, "POST", "/join", OWN, body)
        assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("body", [b"", b"no", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_refused(guard: Guard, body: bytes) -> None:
    assert ask(guard, "POST", "/join", OWN, body).status == 400
