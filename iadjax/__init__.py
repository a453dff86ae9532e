"""iadjax: industrial image anomaly detection in JAX.

run = iadjax.fit(config, workdir)
prediction = run.predict(images)
metrics = iadjax.evaluate(run, "test")
"""

from iadjax import metrics, ops
from iadjax.detector import Batch, DataSpec, Detector, Phase, Prediction
from iadjax.detectors.pytorch import from_torch
from iadjax.errors import UserError
from iadjax.experiment.evaluate import evaluate
from iadjax.experiment.fit import fit
from iadjax.experiment.load import load
from iadjax.experiment.merge import merge
from iadjax.experiment.predict import predict_files
from iadjax.experiment.run import Run
from iadjax.experiment.sequence import fit_sequence
from iadjax.report import print_metrics

__version__ = "0.1.0"

__all__ = [
    "Batch", "DataSpec", "Detector", "Phase", "Prediction", "Run", "UserError", "evaluate", "fit", "fit_sequence",
    "from_torch", "load", "merge", "metrics", "ops", "predict_files", "print_metrics",
]  # fmt: skip
