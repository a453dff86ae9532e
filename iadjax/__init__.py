"""iadjax: industrial image anomaly detection in JAX.

run = iadjax.fit(config, workdir)
prediction = run.predict(images)
metrics = iadjax.evaluate(run, "test")
"""

from iadjax import metrics, ops
from iadjax.detector import Batch, DataSpec, Detector, Phase, Prediction
from iadjax.errors import UserError
from iadjax.evaluate import evaluate
from iadjax.fit import fit
from iadjax.predict import predict_files
from iadjax.report import print_metrics
from iadjax.run import Run, load
from iadjax.sequence import fit_sequence

__all__ = [
    "Batch", "DataSpec", "Detector", "Phase", "Prediction", "Run", "UserError", "evaluate", "fit", "fit_sequence", "load",
    "metrics", "ops", "predict_files", "print_metrics",
]  # fmt: skip
