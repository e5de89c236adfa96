"""The CEL rules of the CRD: what the API server itself refuses, with a sentence, before the operator sees it.

Pure. The rules of parameters are generated from the catalogue of settings; validation.py rules the same in Python, for
the CLI and for an object that was stored under an older CRD. Read by crd.py alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pgweir.settings import Kind, SettingInfo, Support
from pgweir_operator.api import names
from pgweir_operator.api.parameters import PARAMETERS, TIME_PATTERN, WHOLE_NUMBER_PATTERN, expected, usable_choices

Rule = dict[str, Any]

TARGET_CHOICE: Final = "give either cluster.name or target.host, and only one of them"
CLUSTER_IMMUTABLE: Final = "the cluster of a Pooler cannot be changed; create another Pooler"
ACCOUNT_IMMUTABLE: Final = "serviceAccountName cannot be changed once the Pooler exists; create another Pooler"
QUERY_NEEDS_SECRET: Final = "authQuery needs authQuerySecret or serverTLSSecret to log in with; name one"  # noqa: S105
SECRET_NEEDS_QUERY: Final = "authQuerySecret and serverTLSSecret need an authQuery to run; write one"  # noqa: S105
HBA_NEEDS_TYPE: Final = "pg_hba is read only with auth_type hba; remove these lines, or the parameter auth_type"
NO_CATALOG: Final = (
    "image catalogs list images of other poolers; remove imageCatalogRef and name an image in pgbouncer.image"
)
NAME_FORM: Final = (
    f"a Pooler's name must be at most {names.MAX_NAME_LENGTH} lower-case letters, digits and dashes, "
    "beginning and ending with a letter or digit"
)
NAME_TAKEN: Final = (
    "a Pooler may not be named as its cluster or as one of its Services (-rw, -ro, -r); choose another name"
)
UNKNOWN_PARAMETERS: Final = "unknown or reserved parameters: "
CONSOLE_NAME: Final = "pgbouncer is the name of the console; choose another one"

ROOT: Final[tuple[Rule, ...]] = (
    {
        "rule": "!has(self.spec.cluster) || !(self.metadata.name in ["
        "self.spec.cluster.name, self.spec.cluster.name + '-rw', "
        "self.spec.cluster.name + '-ro', self.spec.cluster.name + '-r'])",
        "message": NAME_TAKEN,
        "fieldPath": ".metadata.name",
    },
)

SPEC: Final[tuple[Rule, ...]] = (
    {"rule": "has(self.cluster) != has(self.target)", "message": TARGET_CHOICE},
    {"rule": "has(self.cluster) == has(oldSelf.cluster)", "message": CLUSTER_IMMUTABLE},
    {
        # WHY here and not at the field: a rule on an optional field does not run when the field comes or goes.
        "rule": "has(self.serviceAccountName) == has(oldSelf.serviceAccountName) "
        "&& (!has(self.serviceAccountName) || self.serviceAccountName == oldSelf.serviceAccountName)",
        "message": ACCOUNT_IMMUTABLE,
        "fieldPath": ".serviceAccountName",
    },
)

DATABASE_NAME: Final[tuple[Rule, ...]] = ({"rule": "self != 'pgbouncer'", "message": CONSOLE_NAME},)

CLUSTER: Final[tuple[Rule, ...]] = ({"rule": "self == oldSelf", "message": CLUSTER_IMMUTABLE},)

PGBOUNCER: Final[tuple[Rule, ...]] = (
    {
        "rule": "!(has(self.authQuery) && self.authQuery != '') "
        "|| has(self.authQuerySecret) || has(self.serverTLSSecret)",
        "message": QUERY_NEEDS_SECRET,
        "fieldPath": ".authQuerySecret",
    },
    {
        "rule": "(has(self.authQuery) && self.authQuery != '') "
        "|| !(has(self.authQuerySecret) || has(self.serverTLSSecret))",
        "message": SECRET_NEEDS_QUERY,
        "fieldPath": ".authQuery",
    },
    {
        # A line that lets somebody in, or keeps somebody out, must not be there without effect.
        "rule": "!has(self.pg_hba) || size(self.pg_hba) == 0 || !has(self.parameters) "
        "|| !('auth_type' in self.parameters) || self.parameters['auth_type'] == 'hba'",
        "message": HBA_NEEDS_TYPE,
        "fieldPath": ".pg_hba",
    },
    {"rule": "!has(self.imageCatalogRef)", "message": NO_CATALOG, "fieldPath": ".imageCatalogRef"},
)


def parameter_rules(catalogue: Mapping[str, SettingInfo] = PARAMETERS) -> list[Rule]:
    """One rule for the names, and one for each parameter whose value has a form."""
    allowed = "[" + ", ".join(_text(name) for name in catalogue) + "]"
    rules: list[Rule] = [
        {
            "rule": f"self.all(name, name in {allowed})",
            "messageExpression": _unknown_names(allowed),
            "message": UNKNOWN_PARAMETERS.rstrip(": "),
        }
    ]
    for name, info in catalogue.items():
        test = _test(f"self[{_text(name)}]", info)
        if test is not None:
            rules.append(
                {
                    "rule": f"!({_text(name)} in self) || {test}" if test != "false" else f"!({_text(name)} in self)",
                    "message": expected(info),
                    "fieldPath": f"[{_text(name)}]",
                }
            )
    return rules


def _unknown_names(allowed: str) -> str:
    """Names three culprits, since the API server reports one error for a rule.

    WHY not `join`, `min` or `sort`: a map's keys have no upper length for the API server's estimate, which then is over 100
    times the budget; picking single ones stays within it. WHY the list of one list: it is CEL's way to give a value a
    name. A map has another order each time it is walked, so culprits of several walks could be the same one twice.
    """
    more = [f"(unknown.size() > {index} ? ', ' + unknown[{index}] : '')" for index in (1, 2)]
    told = " + ".join([_text(UNKNOWN_PARAMETERS), "unknown[0]", *more])
    return f"[self.filter(name, !(name in {allowed}))].map(unknown, {told})[0]"


def _test(value: str, info: SettingInfo) -> str | None:
    """A CEL expression over one parameter's text, or None where any text will do."""
    if info.support is Support.REFUSED:
        return "false"
    match info.kind:
        case Kind.INT:
            bounds = f"int({value}) >= {info.minimum} && int({value}) <= {info.maximum}"
            return f"({value}.matches({_text(WHOLE_NUMBER_PATTERN)}) && {bounds})"
        case Kind.TIME:
            bounds = f"double({value}) >= {info.minimum}.0 && double({value}) <= {info.maximum}.0"
            return f"({value}.matches({_text(TIME_PATTERN)}) && {bounds})"
        case Kind.BOOL:
            return f"{value} in ['0', '1']"
        case Kind.ENUM:
            words = "[" + ", ".join(_text(word) for word in usable_choices(info)) + "]"
            return f"{value}.lowerAscii() in {words}"
        case Kind.TEXT | Kind.OPTIONAL_TEXT if info.choices:
            words = "(" + "|".join(word.replace(".", "[.]") for word in info.choices) + ")"
            return f"{value}.matches({_text(f'(?i)^ *{words} *(, *{words} *)*$')})"
    return None


def _text(value: str) -> str:
    """A CEL string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
