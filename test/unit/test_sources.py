"""One string names a source; a wrong one is one clear line."""

import pytest

from wm_ros.data.sources import episodes, number_range
from wm_ros.errors import UserError


def test_ranges_of_numbers():
    assert number_range("0-3,7") == [0, 1, 2, 3, 7]
    assert number_range("") == []


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("sim:moon", "sim:drive"),
        ("sim:drive?seeds=a-b", "range of numbers"),
        ("sim:drive?colour=3", "colour"),
        ("sim:drive?seconds=long", "numbers"),
        ("sim:drive?seconds", "name=value"),
        ("no/such/place", "no such file"),
    ],
)
def test_a_wrong_source_is_named_with_a_remedy(source, named):
    with pytest.raises(UserError, match=named):
        episodes(source)


def test_simulated_episodes_are_listed_without_being_made():
    found = episodes("sim:tabletop?seeds=5-7&seconds=1")
    assert [e.name for e in found] == ["sim-tabletop-000005", "sim-tabletop-000006", "sim-tabletop-000007"]
