"""The API server's refusals, in kinds that decide what happens next."""

from __future__ import annotations

import pytest

from pgweir_operator.kube import ApiError, ConflictError, ForbiddenError, InvalidError, NotFoundError
from pgweir_operator.kube.errors import api_error


@pytest.mark.parametrize(
    ("status", "kind", "may_pass"),
    [
        (400, InvalidError, False),
        (403, ForbiddenError, False),
        (404, NotFoundError, False),
        (409, ConflictError, True),
        (422, InvalidError, False),
        (429, ApiError, True),
        (500, ApiError, True),
        (503, ApiError, True),
    ],
)
def test_each_status_has_its_kind(status, kind, may_pass):
    error = api_error(status, {"message": "in its own words", "reason": "Why"})
    assert type(error) is kind
    assert error.may_pass is may_pass
    assert str(error) == "in its own words"
    assert error.reason == "Why"


def test_a_field_that_the_schema_does_not_have_is_a_mistake_and_no_outage():
    error = api_error(500, {"message": "failed to create typed patch object (n/x; /v1, Kind=Secret): .y: …"})
    assert isinstance(error, InvalidError)
    assert not error.may_pass


@pytest.mark.parametrize("document", [None, [], {}, {"message": ""}, "<html>"])
def test_an_answer_that_is_no_status_still_says_something(document):
    assert str(api_error(502, document)) == "the API server answered 502"
