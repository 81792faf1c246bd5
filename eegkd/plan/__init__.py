"""Costs of a run or a model, before anything is compiled or run."""

from eegkd.plan.account import make_plan, plan_model
from eegkd.plan.catalogue import LoraOptions, ModelPlan
from eegkd.plan.chips import CHIPS, Chip, get_chip
from eegkd.plan.roofline import Roofline, step_roofline

__all__ = [
    "CHIPS",
    "Chip",
    "LoraOptions",
    "ModelPlan",
    "Roofline",
    "get_chip",
    "make_plan",
    "plan_model",
    "step_roofline",
]
