"""Deployment: exported graphs, a card, predictions on new recordings."""

from eegkd.deploy.card import Card, ModelFile, make_card, render_card
from eegkd.deploy.export import export_model
from eegkd.deploy.latency import Latency, measure_latency
from eegkd.deploy.load import Intake, Model, load_intake, load_model, open_store
from eegkd.deploy.onnx_file import load_onnx
from eegkd.deploy.predict import (
    Cut,
    Prediction,
    cut_subject,
    predict_windows,
    window_table,
)
from eegkd.deploy.stablehlo import load_stablehlo

__all__ = [
    "Card",
    "Cut",
    "Intake",
    "Latency",
    "Model",
    "ModelFile",
    "Prediction",
    "cut_subject",
    "export_model",
    "load_intake",
    "load_model",
    "load_onnx",
    "load_stablehlo",
    "make_card",
    "measure_latency",
    "open_store",
    "predict_windows",
    "render_card",
    "window_table",
]
