"""Stateless numerics."""

from eegkd.ops.depthwise import depthwise_conv1d
from eegkd.ops.dropout import keep_mask
from eegkd.ops.flops import count_flops

__all__ = ["count_flops", "depthwise_conv1d", "keep_mask"]
