"""The operator's own port: `/healthz`, `/readyz` and `/metrics`. Reads what others know, changes nothing. Called by main.

Alive is a process whose loop turns and whose watches are at work; an API server that is away does not make it any less so,
since a restart would help nobody. Ready is one that could lead at once: the CRD is there, and all that is watched has come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from pgweir_operator.metrics import Metrics

Problem = Callable[[], str]
"""Why not, in a sentence; nothing when all is well."""

UNAVAILABLE = 503
EVERYWHERE = "*"
"""All addresses, of both families: a cluster may have IPv4, IPv6 or both."""


async def serve(listen: tuple[str, int], metrics: Metrics, *, unhealthy: Problem, unready: Problem) -> web.AppRunner:
    """Raises OSError where somebody else has the port."""

    def told(problem: Problem) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_: web.Request) -> web.Response:
            why = problem()
            return web.Response(text=f"{why}\n", status=UNAVAILABLE) if why else web.Response(text="ok\n")

        return answer

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz", told(unhealthy))
    application.router.add_get("/readyz", told(unready))
    application.router.add_get("/metrics", show)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, port = listen
    await web.TCPSite(runner, None if host == EVERYWHERE else host, port).start()
    return runner
