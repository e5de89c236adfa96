"""`kubectl pgweir clients, waiters, show`: a table of the console from every pod of a Pooler, put together."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from pgweir_operator.cli import screen
from pgweir_operator.cli.exit_codes import DONE, FAILED
from pgweir_operator.cli.plugin.cluster import Cluster, Impossible, PodRest, each_answer, rest_of
from pgweir_operator.cli.shown import Shown
from pgweir_operator.kube import ApiError


async def show_tables(
    cluster: Cluster,
    words: Sequence[str],
    pooler: str | None,
    *,
    as_json: bool,
    every: float | None,
    columns: Sequence[str],
) -> int:
    """Exit code 1: some pod did not answer. Where none does, that is what is said."""
    pods = await cluster.pods(pooler)
    if not pods:
        if pooler is not None:
            await cluster.pooler(pooler)  # says so where there is none
        raise Impossible(f"no pod of {f'Pooler {pooler!r}' if pooler else 'any Pooler'} is running")
    path = f"/api/v1/show/{urllib.parse.quote('_'.join(words).lower(), safe='')}"
    async with rest_of(cluster, pods) as ways:
        while True:
            shown, troubles = await _asked(ways, path)
            shown = _picked(shown, columns)
            if as_json and every is not None:
                screen.say(json.dumps(shown.dictionaries(), ensure_ascii=False))
            else:
                if every is not None:
                    if screen.out.is_terminal:
                        screen.out.clear()
                    screen.say(time.strftime("%H:%M:%S"))
                screen.print_shown(shown, as_json=as_json)
            for trouble in troubles:
                screen.complain(trouble)
            if every is None:
                return FAILED if troubles else DONE
            await asyncio.sleep(every)


def _picked(shown: Shown, columns: Sequence[str]) -> Shown:
    try:
        return screen.picked(shown, columns)
    except ValueError as error:
        raise Impossible(str(error)) from None


async def _asked(ways: Sequence[PodRest], path: str) -> tuple[Shown, list[str]]:
    answers = await each_answer(ways, path)
    failures = {pod: answer for pod, answer in answers.items() if isinstance(answer, (ApiError, Impossible))}
    if len(failures) == len(answers):
        raise next(iter(failures.values()))
    told = [str(failure) for failure in failures.values()]
    return together({pod: answer for pod, answer in answers.items() if pod not in failures}), told


def together(answers: Mapping[str, Mapping[str, Any]]) -> Shown:
    """The rows of all pods, each with its pod in front. Pods of an older image may have fewer columns. Pure."""
    columns: dict[str, bool] = {}
    for answer in answers.values():
        columns.update({column["name"]: column["type"] == "number" for column in answer["columns"]})
    rows = [(pod, *(row.get(name) for name in columns)) for pod, answer in answers.items() for row in answer["rows"]]
    if (
        "wait" in columns and "wait_us" in columns and "limit" in columns
    ):  # waiters: the longest wait first, over all pods
        at = 1 + list(columns).index("wait")
        rows.sort(key=lambda row: (-(row[at] or 0), -(row[at + 1] or 0)))
    return Shown((("pod", False), *columns.items()), tuple(rows))
