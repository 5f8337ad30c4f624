"""Journeys: one per path, with the real processes."""

import pytest

pytest.register_assert_rewrite("tests.journeys.steps")
