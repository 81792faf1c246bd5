"""Judging models: metrics, statistics, calibration, events, baselines, reports."""
