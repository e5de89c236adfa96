"""A service without a network, and a conversation with its console."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pgweir.admin.world import ConsoleTalk, HandService


@pytest.fixture
def service(tmp_path: Path) -> HandService:
    return HandService(tmp_path)


@pytest.fixture
def console(service: HandService) -> ConsoleTalk:
    return service.console()
