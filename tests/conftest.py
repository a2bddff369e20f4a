"""What takes long or needs special hardware is skipped, with the reason, unless it is asked for: `make test ARGS="-m slow"`."""

from pathlib import Path

import pytest

ON_REQUEST = ("slow", "nspawn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = str(config.option.markexpr)
    for item in items:
        for marker in ON_REQUEST:
            if item.get_closest_marker(marker) and marker not in asked:
                item.add_marker(pytest.mark.skip(reason=f'{marker}: only on request, make test ARGS="-m {marker}"'))


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the test's own under a short name: a socket's path may have about a hundred bytes, and pytest's own
    names, with a worker's folder before them, left too few of those."""
    return tmp_path_factory.mktemp("t")
