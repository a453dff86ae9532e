"""One run of `peer_anomalib.py` on anomalib's side: `python peer_theirs.py JOB.json`, by the Python that has anomalib.

Images, weights, size, batches, epochs and seed come from the job; the rest is anomalib's own: its engine, its data module, its
transforms. Nothing is downloaded: where anomalib asks for pretrained weights, it gets those of the job's file.
"""

import json
import resource
import shutil
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import load_file

warnings.filterwarnings("ignore")


def with_weights(make, asked, file):
    """The factory of a network; where `asked` of its options says pretrained, it takes the tensors of the file."""

    def made(*args, **options):
        wanted = asked(options)
        model = make(*args, **options)
        if wanted:
            # the file ends before the last stage, whose layers are not used
            found = model.load_state_dict(load_file(file), strict=False)
            missing = {name.split(".")[0] for name in found.missing_keys} - {"layer4", "fc"}
            if missing or found.unexpected_keys:
                raise RuntimeError(
                    f"the weights do not fit: {sorted(missing)} are missing, {found.unexpected_keys[:3]} unknown"
                )
        return model

    return made


def pretrained_of_timm(options):
    wanted = options.get("pretrained", False)
    options["pretrained"] = False
    return wanted


def weights_of_torchvision(options):
    return options.pop("weights", None) is not None


def copied(files, folder):
    """Copies of the files whose sorted names have the files' order."""
    folder.mkdir(parents=True)
    for number, file in enumerate(files):
        shutil.copy(file, folder / f"{number:05d}{Path(file).suffix}")
    return folder


def main():
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    timm.create_model = with_weights(timm.create_model, pretrained_of_timm, job["weights"])
    torchvision.models.resnet18 = with_weights(torchvision.models.resnet18, weights_of_torchvision, job["weights"])
    from anomalib import models
    from anomalib.data import Folder, PredictDataset
    from anomalib.engine import Engine
    from lightning.pytorch import seed_everything
    from torch.utils.data import DataLoader
    from torchvision.transforms.v2 import Resize

    class Images(Folder):
        """Images to train on alone; anomalib's own module asks for validation images that are not there."""

        def val_dataloader(self):
            return []

    output = Path(job["output"])
    shutil.rmtree(output / "images", ignore_errors=True)
    train, test = (copied(job[part], output / "images" / part) for part in ("train", "test"))
    seed_everything(job["seed"], workers=True, verbose=False)
    began = time.perf_counter()
    kind = getattr(models, job["model"])
    side = (job["size"], job["size"])
    bare = {"post_processor": False, "evaluator": False, "visualizer": False}
    model = kind(**job["theirs"], **bare, pre_processor=kind.configure_pre_processor(image_size=side))
    data = Images(
        "images",
        normal_dir=train,
        normal_split_ratio=0.0,
        train_augmentations=Resize(side, antialias=True),
        train_batch_size=job["batch"],
        eval_batch_size=job["batch"],
        num_workers=job["workers"],
        test_split_mode="none",
        val_split_mode="none",
        seed=job["seed"],
    )
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    epochs = {"max_epochs": job["epochs"]} if job["epochs"] else {}
    engine = Engine(default_root_dir=output / "engine", accelerator="cpu", devices=1, **quiet, **epochs)
    engine.fit(model=model, datamodule=data)
    fitted = time.perf_counter() - began

    def predict(folder):
        images = PredictDataset(folder, transform=Resize(side, antialias=True))
        loader = DataLoader(images, job["batch"], num_workers=job["workers"], collate_fn=images.collate_fn)
        return engine.predict(model=model, dataloaders=loader, return_predictions=True)

    first = copied(job["test"][: job["batch"]], output / "images/first")
    predict(first)
    began = time.perf_counter()
    batches = predict(test)
    seconds = time.perf_counter() - began
    scores = torch.cat([batch.pred_score.reshape(-1) for batch in batches]).double()
    if batches[0].anomaly_map is not None:
        maps = torch.cat([batch.anomaly_map.reshape(-1, *batch.anomaly_map.shape[-2:]) for batch in batches])
        np.save(output / "maps.npy", maps.float().numpy())
    order = [Path(path).name for batch in batches for path in batch.image_path]
    if order != sorted(order) or len(order) != len(job["test"]):
        raise RuntimeError("anomalib gave the images in another order")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"scores": scores.tolist(), "fit_seconds": fitted, "predict_seconds": seconds, "peak_bytes": peak}
    (output / "side.json").write_text(json.dumps(found), encoding="utf-8")
    shutil.rmtree(output / "images")
    shutil.rmtree(output / "engine", ignore_errors=True)


if __name__ == "__main__":
    main()
