"""Stateless numerics."""

from eegkd.ops.attention import dot_product_attention
from eegkd.ops.depthwise import depthwise_conv1d
from eegkd.ops.dropout import keep_mask
from eegkd.ops.flops import count_flops
from eegkd.ops.sinkhorn_plan import Plan, sinkhorn, transport_plan

__all__ = [
    "Plan",
    "count_flops",
    "depthwise_conv1d",
    "dot_product_attention",
    "keep_mask",
    "sinkhorn",
    "transport_plan",
]
