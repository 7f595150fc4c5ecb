"""What of the tests speaks of one backend alone."""

from __future__ import annotations

import mlx.core as mx
import pytest

on_cpu = mx.default_device().type == mx.DeviceType.cpu
cpu_only = pytest.mark.skipif(not on_cpu, reason="states the planner's choice for the CPU")
