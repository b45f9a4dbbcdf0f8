"""Measured GPU memory, on a machine that may have no GPU."""

from placement.agent import nvml


def test_no_driver_is_a_state_and_not_an_error() -> None:
    found = nvml.used_bytes()
    assert found is None or all(n >= 0 for n in found.values())
