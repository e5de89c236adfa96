"""What every command of the plugin begins with: the API server, the namespace, the Poolers and their pods."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from pgweir_operator.api import names
from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DONE, FAILED, UNREACHABLE
from pgweir_operator.kube import Access, ApiError, ConflictError, InvalidError, Kube, NotFoundError, connect
from pgweir_operator.kube.api import Object
from pgweir_operator.kube.connection import ConfigException, namespace_of
from pgweir_operator.kube.portforward import Forward, forwarded

AT_ONCE: Final = 10  # pods asked at the same time
ASK_TIMEOUT: Final = 15.0


class Impossible(Exception):
    """What was asked for cannot be done; the message says why and what can."""


@dataclass(frozen=True, slots=True)
class Where:
    """kubectl's own options."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    everywhere: bool = False


class Cluster:
    """The API server, in one namespace ("": in all)."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace

    async def pooler(self, name: str) -> Object:
        found = await self.kube.get("Pooler", self.namespace, name)
        if found is None:
            there = sorted(each["metadata"]["name"] for each in await self._all_poolers())
            known = f"; there are {', '.join(there)}" if there else ", nor any other"
            raise Impossible(f"there is no Pooler {name!r} in namespace {self.namespace!r}{known}")
        return found

    async def _all_poolers(self) -> list[Object]:
        try:
            return await self.kube.items("Pooler", self.namespace)
        except NotFoundError:
            raise Impossible(
                "this cluster knows no Poolers (there is no CRD poolers.pgweir.io): is it the right one (--context), and is "
                "the operator installed?"
            ) from None

    async def poolers(self, name: str | None) -> list[Object]:
        if name is not None:
            return [await self.pooler(name)]
        found = await self._all_poolers()
        return sorted(found, key=lambda each: (each["metadata"]["namespace"], each["metadata"]["name"]))

    async def pods(self, pooler: str | None) -> list[Object]:
        """Those that run, of one Pooler or of all."""
        labels = names.POOLER_LABEL if pooler is None else names.selector_text(pooler)
        found = await self.kube.items("Pod", self.namespace, labels=labels)
        running = [pod for pod in found if (pod.get("status") or {}).get("phase") == "Running"]
        return sorted(running, key=lambda pod: str(pod["metadata"]["name"]))


def namespace_and_name(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def run(where: Where, work: Callable[[Cluster], Awaitable[int]]) -> int:
    """One command: connect, do it, and make an exit code of whatever comes."""
    screen.fresh()
    try:
        return asyncio.run(_run(where, work))
    except ConfigException as error:
        screen.complain(
            f"no cluster to speak to: {_one_line(error)}; --kubeconfig, --context or KUBECONFIG name another one"
        )
        return UNREACHABLE
    except Impossible as error:
        screen.complain(str(error))
        return FAILED
    except ApiError as error:
        screen.complain(error.message)
        refused = isinstance(error, (NotFoundError, ConflictError, InvalidError))
        return FAILED if refused else UNREACHABLE
    except KeyboardInterrupt:
        return DONE


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).removesuffix(".")


def _need_kubeconfig(access: Access) -> None:
    """The library would complain of a key that is missing in a file that is not there."""
    files = access.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not access.is_in_cluster and not any(Path(file).expanduser().exists() for file in files.split(os.pathsep)):
        raise ConfigException(f"there is no kubeconfig {files}")


async def _run(where: Where, work: Callable[[Cluster], Awaitable[int]]) -> int:
    access = Access(where.kubeconfig, where.context)
    _need_kubeconfig(access)
    try:
        namespace = "" if where.everywhere else where.namespace or namespace_of(access)
        configuration = await connect(access)
    except ConfigException:
        raise
    except Exception as error:  # whatever a file of that name may hold, the library stumbles over it in ways of its own
        words = str(error) if isinstance(error, (OSError, yaml.YAMLError)) else "it is none"
        raise ConfigException(f"the kubeconfig cannot be read: {words}") from None
    async with Kube(configuration) as kube:
        return await work(Cluster(kube, namespace))


# --- into the pods --------------------------------------------------------------------------------------------------


class PodRest:
    """The REST of one pod."""

    def __init__(self, cluster: Cluster, pod: Object, forward: Forward, session: aiohttp.ClientSession) -> None:
        self.namespace, self.pod = namespace_and_name(pod)
        self._cluster = cluster
        self._forward = forward
        self._session = session

    async def get(self, path: str) -> Any:
        """The answer of a path, as JSON. Raises ApiError or Impossible."""
        self._forward.error = None
        try:
            async with asyncio.timeout(ASK_TIMEOUT), self._session.get(f"http://pod{path}") as answer:
                document = json.loads(await answer.read())
                status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if self._forward.error is not None:
                raise self._forward.error from None
            words = f"nothing within {ASK_TIMEOUT:g} s" if isinstance(error, TimeoutError) else str(error)
            raise ApiError(0, f"pod {self.pod} does not answer: {words or type(error).__name__}") from None
        if status != 200:
            raise Impossible(f"pod {self.pod}: {document.get('error') if isinstance(document, dict) else status}")
        return document

    async def has_left(self) -> bool:
        return await has_left(self._cluster, self.namespace, self.pod)


async def has_left(cluster: Cluster, namespace: str, name: str) -> bool:
    """The pod is on its way out, or gone: that it does not answer is no trouble."""
    pod = await cluster.kube.get("Pod", namespace, name)
    return pod is None or is_leaving(pod)


def is_leaving(pod: Object) -> bool:
    """It is on its way out: ready for a while yet, and soon it takes nobody any more."""
    return pod["metadata"].get("deletionTimestamp") is not None


@contextlib.asynccontextmanager
async def rest_of(cluster: Cluster, pods: Sequence[Object]) -> AsyncIterator[list[PodRest]]:
    """A way to the REST of each pod, through sockets that nobody else on this machine may use."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgweir-")))
        found = []
        for number, pod in enumerate(pods):
            namespace, name = namespace_and_name(pod)
            path = folder / str(number)
            forward = await stack.enter_async_context(forwarded(cluster.kube, namespace, name, names.PORT_HTTP, path))
            session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)))
            found.append(PodRest(cluster, pod, forward, await stack.enter_async_context(session)))
        yield found


async def each_answer(pods: Sequence[PodRest], path: str) -> dict[str, Any]:
    """By pod: what stands there, or the ApiError or Impossible that came instead; of a pod that has left meanwhile, nothing."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(pod: PodRest) -> Any:
        async with gate:
            try:
                return await pod.get(path)
            except (ApiError, Impossible) as error:
                return error

    answers = dict(zip(pods, await asyncio.gather(*map(ask, pods)), strict=True))
    if any(not isinstance(answer, Exception) for answer in answers.values()):
        for pod in [pod for pod, answer in answers.items() if isinstance(answer, Exception)]:
            if await pod.has_left():
                del answers[pod]
    return {pod.pod: answer for pod, answer in answers.items()}
