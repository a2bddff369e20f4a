"""What takes long or needs special hardware is skipped, with the reason, unless it is asked for: `make test ARGS="-m slow"`."""

import pytest

ON_REQUEST = ("slow", "nspawn")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = str(config.option.markexpr)
    for item in items:
        for marker in ON_REQUEST:
            if item.get_closest_marker(marker) and marker not in asked:
                item.add_marker(pytest.mark.skip(reason=f'{marker}: only on request, make test ARGS="-m {marker}"'))
