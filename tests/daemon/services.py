"""What the tests of the service share."""

from __future__ import annotations

import pytest

from daemon.service import Scope


@pytest.fixture(params=list(Scope))
def scope(request: pytest.FixtureRequest) -> Scope:
    """Each scope in turn; a test module takes it over with `scope = services.scope`."""
    scope = request.param
    assert isinstance(scope, Scope)
    return scope
