"""Costs of a run or a model, before anything is compiled or run."""
