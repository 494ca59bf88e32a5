"""One string names a source; a wrong one is one clear line."""

import pytest

from wm_ros.data.sources import episodes, number_range, weight
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


def test_a_stretch_of_an_episode_counts_from_its_first_sample():
    source = "sim:drive?seeds=3&seconds=1&beams=8&azimuths=60"
    whole = list(episodes(source)[0].samples())
    part = list(episodes(source + "&start_s=0.3&end_s=0.6")[0].samples())
    first_ns = whole[0].stamp_ns
    assert [s.stamp_ns for s in part] == [s.stamp_ns for s in whole if 0.3e9 <= s.stamp_ns - first_ns < 0.6e9]
    assert len(part) == len(whole) * 3 // 10


def test_the_weight_of_a_source_is_read_and_must_be_positive():
    assert weight("sim:drive?seeds=3&weight=2.5") == 2.5
    assert weight("sim:drive") is None
    assert len(episodes("sim:drive?seeds=3&weight=2.5")) == 1
    with pytest.raises(UserError, match="not positive"):
        weight("sim:drive?weight=0")
