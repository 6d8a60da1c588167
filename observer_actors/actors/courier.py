"""The courier: delivers the outbox to the gateway and to the webhook, each in order, at least once.

The head of the outbox is tried until it is delivered or refused for good (a 4xx that says that trying again cannot
help); what follows waits. So the gateway sees what was learned in the order in which it was. Of its answers the status
alone counts: no body is read.
"""

from __future__ import annotations

from typing import Final

import httpx
import trio
from structlog.typing import FilteringBoundLogger

from observer_actors.actors.learned import Learned
from observer_actors.actors.surroundings import Surroundings
from observer_actors.backoff import backoff_s
from observer_actors.settings import GatewaySettings
from observer_actors.store import Lane, Queued
from observer_actors.supervision import Life

BACKOFF_FIRST_S: Final = 1.0
SETTLE_S: Final = 0.5
"""Time to write down what the gateway has answered, also when the courier is being stopped: else it gets it twice."""
_TRY_AGAIN: Final = frozenset({408, 425, 429})
"""4xx that say "later": Request Timeout, Too Early, Too Many Requests (RFC 9110, 8470, 6585)."""


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
        webhook_url: str = "",
        around: Surroundings | None = None,
    ) -> None:
        self._learned = learned
        self._settings = settings
        self._log = log
        self._lanes = {Lane.GATEWAY: bool(settings.url), Lane.WEBHOOK: bool(webhook_url)}
        self._webhook_url = webhook_url
        self._around = around or Surroundings()

    async def run(self, life: Life) -> None:
        """Serve as an actor."""
        life.ready()
        lanes = [lane for lane, has_receiver in self._lanes.items() if has_receiver]
        if not lanes:
            life.at("no gateway")
            await trio.sleep_forever()
        async with (
            httpx.AsyncClient(
                base_url=self._settings.url,
                timeout=self._settings.timeout_seconds,
                trust_env=False,
                transport=self._around.transport,
            ) as client,
            trio.open_nursery() as nursery,
        ):
            for lane in lanes:
                nursery.start_soon(self._deliver, client, lane, life)

    async def _deliver(self, client: httpx.AsyncClient, lane: Lane, life: Life) -> None:
        while True:
            life.at("waiting")
            message = await self._learned.next_message(lane)
            life.at("delivering")
            answer = await self._send(client, lane, message)
            life.at("settling")
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SETTLE_S):
                if await self._settle(message, answer):
                    life.progress()

    async def _send(self, client: httpx.AsyncClient, lane: Lane, message: Queued) -> int | str:
        """Try once; give the status, or what went wrong."""
        # "close", since the body of the answer stays unread.
        headers = {"Content-Type": "application/json", "Idempotency-Key": message.key, "Connection": "close"}
        url = self._webhook_url if lane is Lane.WEBHOOK else message.path
        request = client.build_request("POST", url, content=message.body, headers=headers)
        try:
            with trio.fail_after(self._settings.timeout_seconds):
                response = await client.send(request, stream=True)
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            return f"{type(error).__name__}: {error}".rstrip(": ")
        return response.status_code

    async def _settle(self, message: Queued, answer: int | str) -> bool:
        """Note what became of a try; say whether the message is done with."""
        if not isinstance(answer, int):
            await self._again(message, answer)
            return False
        problem = f"status {answer}"
        if httpx.codes.is_success(answer):
            await self._learned.delivered(message)
        elif httpx.codes.is_client_error(answer) and answer not in _TRY_AGAIN:
            self._log.error("message_refused", key=message.key, error=problem)
            await self._learned.refused(message, problem)
        else:
            await self._again(message, problem)
            return False
        return True

    async def _again(self, message: Queued, error: str) -> None:
        delay_s = backoff_s(
            message.attempts + 1, BACKOFF_FIRST_S, self._settings.retry_seconds_max, self._around.chance()
        )
        if message.attempts == 0:
            self._log.warning("delivery_failed", key=message.key, error=error, retry_s=round(delay_s, 1))
        await self._learned.failed(message, error, delay_s)
