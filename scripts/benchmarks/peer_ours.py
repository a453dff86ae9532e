"""One run of `peer_anomalib.py` on this library's side: `python peer_ours.py JOB.json`, in a process of its own."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

import iadjax
from iadjax.cpu import allocator


def main() -> None:
    # as scripts/train.py does
    allocator.keep_freed()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    output = Path(job["output"])
    began = time.perf_counter()
    run = iadjax.fit(job["config"], output / "run")
    fitted = time.perf_counter() - began
    items = run.data.split.test
    # the first batch compiles
    list(run.predict_items(items[: job["batch"]]))
    began = time.perf_counter()
    rows = list(run.predict_items(items))
    seconds = time.perf_counter() - began
    paths, scores, maps = [row[0].path for row in rows], np.array([row[1] for row in rows]), [row[2] for row in rows]
    if maps[0] is not None:
        np.save(output / "maps.npy", np.stack(maps))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    compiling = json.loads((output / "run/run.json").read_text(encoding="utf-8"))["compilations"]["seconds"]
    found = {"paths": paths, "scores": scores.tolist(), "peak_bytes": peak}
    found |= {"fit_seconds": fitted, "predict_seconds": seconds, "compile_seconds": compiling}
    (output / "side.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
