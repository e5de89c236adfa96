"""The REST reference for users: `python -m pgweir.admin.rest_reference > docs/rest.md`.

Pure; a test compares the page with it.
"""

from __future__ import annotations

from typing import Final

from pgweir.admin.resources import RESOURCES, Resource, column_type
from pgweir.admin.shown import NAMES

_HEADER: Final = """\
# REST

Written by `python -m pgweir.admin.rest_reference > docs/rest.md`; do not edit it by hand.

`pgweir-pooler --http-listen ADDRESS:PORT` (port 8080 in a pod) answers GET requests with JSON. It changes nothing, and no answer
holds a password. Values are those that the [console](console.md) shows at the same moment.

```console
$ curl http://localhost:8080/api/v1/pools
$ kubectl port-forward deploy/pooler-example-rw 8080 &
$ curl --silent --retry 5 --retry-connrefused http://localhost:8080/api/v1/waiters
```

From the pooler's own host (a port-forward and `kubectl exec` count) nothing is asked for. From elsewhere `/api/v1` wants
`Authorization: Bearer TOKEN`, with the token in the file `token` of `--control-dir`, which in a cluster is the key `token` of the
Secret `<pooler>-control`.
`/livez` and `/readyz` are for everybody, and so is the page at `/`, which has nothing in it: it
asks `/api/v1/overview`, and its user for the token where one is needed.

A name with a dot in it, such as a Service's, is never taken for the own host's: a page of somebody else's
in your browser could come by one.

![The page: pools, queue, holders and histograms](images/page-desktop-light.png)

An error is `{"error": "a sentence"}`: 401 without the token, 404 for another path, 405 for another method.

| path | what it has |
| --- | --- |
| `/` | a page for a browser: pools, queue, holders, how long things take, once a second |
| `/livez` | `{"alive": true}` |
| `/readyz` | 200 when a new connection would be accepted, else 503 and `reason` |
| `/api/v1` | this list |
"""


def rest_reference() -> str:
    rows = [f"| `{resource.path}` | {resource.meaning} |" for resource in RESOURCES.values()]
    rows.append('| `/api/v1/show/TABLE` | any table of the console: `{"columns": [{"name", "type"}], "rows": [{…}]}` |')
    parts = [_HEADER + "\n".join(rows) + "\n"]
    parts += [_section(resource) for resource in RESOURCES.values()]
    names = ", ".join(f"`{name.lower()}`" for name in NAMES)
    parts.append(f"## /api/v1/show/TABLE\n\nTABLE is one of {names}.\n")
    return "\n".join(parts)


def _section(resource: Resource) -> str:
    title = f"## {resource.path}\n\n"
    if resource.fields:
        what = (
            "An object"
            if resource.name in ("health", "overview")
            else "A list of objects, one for each database and user"
        )
        lines = [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in resource.fields]
        return f"{title}{what}.\n\n| field | type | meaning |\n| --- | --- | --- |\n" + "\n".join(lines) + "\n"
    words = ", ".join(f"`{name}` ({column_type(oid)})" for name, oid in resource.columns)
    return f"{title}A list of objects, one for each row of `SHOW {resource.table}`: {words}. Any of them may be null.\n"


if __name__ == "__main__":
    print(rest_reference(), end="")
