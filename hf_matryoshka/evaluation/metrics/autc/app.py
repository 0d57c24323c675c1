"""The page of the Space: a form that computes the metric."""

import evaluate
from evaluate.utils import launch_gradio_widget


launch_gradio_widget(evaluate.load("autc.py"))
