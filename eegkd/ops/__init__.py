"""Stateless numerics."""

from eegkd.ops.depthwise import depthwise_conv1d

__all__ = ["depthwise_conv1d"]
