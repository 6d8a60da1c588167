"""The courier: delivers the outbox to the gateway and to the webhook, each in order, at least once.

The head of the outbox is tried until it is delivered or refused for good (a status that says something of this
message, or of our address; or one that may, `DECLINED_MAX` times); what follows waits. So the gateway sees what was
learned in the order in which it was. Of its answers the status alone counts: no body is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, NamedTuple

import httpx
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.learned import Learned
from observer_actors.actors.surroundings import Surroundings, trusted_certificates
from observer_actors.backoff import asked_wait_s, backoff_s
from observer_actors.errors import SAID_CHARS_MAX, said_by
from observer_actors.settings import GatewaySettings
from observer_actors.store import Lane, Queued
from observer_actors.supervision import Life
from observer_actors.visible import cut

BACKOFF_FIRST_S: Final = 1.0
SETTLE_S: Final = 0.5
"""Time to write down what the gateway has answered while the courier is being stopped: else it gets it twice."""
_FINAL: Final = frozenset({301, 304, 308, 400, 405, 410, 411, 413, 414, 415, 422, 431, 451})
"""Statuses that say that this message will never be taken, or not at this address."""
_DECLINED: Final = frozenset(range(300, 500)) - _FINAL - {408, 429}
"""Those that say so, or come from what stands before the receiver while that is away (a page for those who wait, a
router without a route), or are about what this message says (a firewall that looks into bodies)."""
DECLINED_MAX: Final = 100
"""Tries that are answered so before a message counts as refused: 4 to 8 hours at the usual `retry_seconds_max`, 300
seconds. Enough for an outage that somebody is called for; then what waits behind it has its turn."""


class _Answer(NamedTuple):
    status: int
    """0: there is none."""
    problem: str = ""
    hint: str = ""
    wait_s: float = 0.0
    """How long it asks us to wait, at most as long as we ever do; 0 where it does not say."""

    @property
    def hints(self) -> Mapping[str, str]:
        """The hint as a line of the log has it, where there is one."""
        return {"hint": self.hint} if self.hint else {}


_NONE: Final = _Answer(0)


@dataclass(slots=True)
class _Tried:
    """What was met by the tries of a message, since the daemon has started: `attempts`, in the store, says how many.

    After a long outage the first 404 would refuse a message by those; and after a restart nothing would be said of it.
    """

    key: str = ""
    attempts: int = -1
    """Tries that had failed before the last one. While the store knows of no more, its answer is not written down."""
    answer: _Answer = _NONE
    """What the last try was answered with."""
    declined: int = 0
    """Tries that were answered with a status of `_DECLINED`."""
    said: set[str] = field(default_factory=set)
    """Problems that the log has: each once, also where they alternate."""

    def is_news(self, problem: str) -> bool:
        """Tell whether the log does not have a problem yet; from now on it has."""
        is_news = problem not in self.said
        self.said.add(problem)
        return is_news


class Courier:
    """The actor.

    :param webhook_url: where the messages for the webhook go; empty: there is none.
    """

    def __init__(
        self,
        learned: Learned,
        settings: GatewaySettings,
        *,
        log: FilteringBoundLogger,
        webhook_url: str,
        around: Surroundings,
    ) -> None:
        self._learned = learned
        self._settings = settings
        self._log = log
        self.lanes: Final = [
            *([Lane.GATEWAY] if settings.url else []),
            *([Lane.WEBHOOK] if webhook_url else []),
        ]
        """Those that have a receiver."""
        self._webhook_url = webhook_url
        self._around = around
        self._tried = {lane: _Tried() for lane in self.lanes}
        """Of the head of each. Outlives incarnations: a store that refuses to write an answer down makes us crash."""

    async def run(self, life: Life) -> None:
        """Serve as an actor."""
        life.ready()
        await self._tell_stranded()
        if not self.lanes:
            life.at("no gateway")
            await trio.sleep_forever()
        async with (
            # Without a base: a URL that is none then costs a try of its own lane, and not the client of both.
            httpx.AsyncClient(
                timeout=self._settings.timeout_seconds,
                trust_env=False,
                verify=trusted_certificates(),  # `trust_env` would bring proxies, too
                transport=self._around.transport,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # takes none: it has both receivers'
                event_hooks={"response": [_set_location_aside]},
            ) as client,
            trio.open_nursery() as nursery,
        ):
            for lane in self.lanes:
                nursery.start_soon(self._deliver, client, lane, life)

    async def _tell_stranded(self) -> None:
        """Say what waits for a receiver that has been taken out of the configuration."""
        for lane, counts in (await self._learned.outbox()).items():
            if counts.pending and lane not in self.lanes:
                hint = "they are kept, and delivered once it is configured again"
                self._log.warning("messages_stranded", receiver=lane.value, pending=counts.pending, hint=hint)

    async def _deliver(self, client: httpx.AsyncClient, lane: Lane, life: Life) -> None:
        log = self._log.bind(receiver=lane.value)
        while True:
            life.at("waiting")
            message = await self._learned.next_message(lane)
            tried = self._tried[lane]
            if message.key != tried.key:
                tried = self._tried[lane] = _Tried(message.key)
            if message.attempts != tried.attempts:
                life.at("delivering")
                tried.answer = await self._send(client, lane, message)
                tried.attempts = message.attempts
                tried.declined += tried.answer.status in _DECLINED
            life.at("settling")
            if await self._settle(message, tried, log):
                life.progress()

    async def _send(self, client: httpx.AsyncClient, lane: Lane, message: Queued) -> _Answer:
        """Try once."""
        # "close", since the body of the answer stays unread.
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.key, "Connection": "close"}
        url = self._webhook_url if lane is Lane.WEBHOOK else self._settings.url.rstrip("/") + message.path
        try:
            with trio.fail_after(self._settings.timeout_seconds):
                request = client.build_request("POST", url, content=message.body, headers=headers)
                response = await client.send(request, stream=True)
                await response.aclose()
        # `ValueError`: a host that no name service is asked for, since a label of it is empty or too long.
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError, ValueError) as error:
            return _Answer(0, f"{type(error).__name__}: {said_by(error)}".rstrip(": "))
        status, said = response.status_code, response.headers
        hint = _where_to(response) if httpx.codes.is_redirect(status) else ""
        wait_s = asked_wait_s(
            said.get("Retry-After", ""),
            said.get("Date", ""),
            now=self._around.seconds(),
            most_s=self._settings.retry_seconds_max,
        )
        return _Answer(status, f"status {status}", hint, wait_s)

    async def _settle(self, message: Queued, tried: _Tried, log: FilteringBoundLogger) -> bool:
        """Write down what became of a try, however long the store takes; say whether the message is done with."""
        try:
            return await self._note(message, tried, log)
        except trio.Cancelled:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SETTLE_S):
                await self._note(message, tried, log)
            raise

    async def _note(self, message: Queued, tried: _Tried, log: FilteringBoundLogger) -> bool:
        answer = tried.answer
        if httpx.codes.is_success(answer.status):
            await self._learned.delivered(message)
        elif answer.status in _FINAL or tried.declined >= DECLINED_MAX:
            problem = answer.problem if answer.status in _FINAL else f"{answer.problem}, {tried.declined} times"
            if tried.is_news(problem):
                log.error("message_refused", key=message.key, error=problem, **answer.hints)
            await self._learned.refused(message, problem)
        else:
            await self._again(message, tried, log)
            return False
        return True

    async def _again(self, message: Queued, tried: _Tried, log: FilteringBoundLogger) -> None:
        answer, most_s = tried.answer, self._settings.retry_seconds_max
        delay_s = max(backoff_s(message.attempts + 1, BACKOFF_FIRST_S, most_s, self._around.chance()), answer.wait_s)
        if tried.is_news(answer.problem):
            retry_s = round(delay_s, 1)
            log.warning("delivery_failed", key=message.key, error=answer.problem, retry_s=retry_s, **answer.hints)
        await self._learned.failed(message, answer.problem, delay_s)


_LOCATION: Final = "location"


async def _set_location_aside(response: httpx.Response) -> None:
    """Hide from httpx where an answer redirects to.

    It makes the next request also where it is to follow none, and raises where it cannot: the status would not be seen.
    """
    response.extensions[_LOCATION] = response.headers.pop("Location", "")


def _where_to(response: httpx.Response) -> str:
    """Say which server a redirect names: the rest of the address may hold a token."""
    target, location = httpx.URL(), response.extensions[_LOCATION]
    if location:
        with suppress(httpx.InvalidURL, ValueError):  # urllib raises the latter
            target = response.request.url.join(location)
    if not target.raw_host:  # `host` decodes it, and raises over what is no name (`xn--a`)
        return "it redirects, but nowhere"
    server = cut(f"{target.scheme}://{target.netloc.decode()}", SAID_CHARS_MAX)
    return f"it redirects to {server}: configure the address that it has now"
