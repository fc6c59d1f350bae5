"""Everything that a run says while it runs, in all the places where it says it."""

import dataclasses
import itertools
import pathlib

from evaluation import answers, evaluate, metrics
from tracking import curves, pictures, pixels
from tracking import scalars as names
from tracking.console import Console
from tracking.metrics_file import MetricsFile
from tracking.tensorboard import TensorBoard
from tracking.wandb_run import WandbRun
from training import internals


class Tracker:
    """Writes to the console, to `<workdir>/metrics.jsonl`, to wandb and to TensorBoard; only the chief makes one."""

    def __init__(self, workdir, *, project, config, step, steps, mode, manifest=None, tensorboard=True):
        """Starts, or goes on with, the tracking of a run.

        Args:
          workdir: folder of the run.
          project: wandb's name for the group of runs.
          config: the resolved config as nested dicts.
          step: how many the run has taken; what was recorded past it, before a kill, will be recorded again.
          steps: how many the run will have, for the time left.
          mode: of wandb: online, offline, disabled or auto; see `wandb_start.start`.
          manifest: dict, of the records that it reads.
          tensorboard: whether `<workdir>/tensorboard` is written.
        """
        workdir = pathlib.Path(workdir)
        self.config = config
        self.console, self.file = Console(steps), MetricsFile(workdir, step)
        self.tensorboard = TensorBoard(workdir, step) if tensorboard else None
        self.wandb = WandbRun(workdir, project, config, mode)
        if manifest:
            self.wandb.use_dataset(config["name"], manifest)

    def log(self, step, scalars):
        """Records the scalars of the steps up to this one, and what follows from them; prints a line."""
        scalars = {**scalars, **names.of_machine(scalars, self.config["input"]["patch_size"])}
        self._write(step, scalars)
        self.console.log(step, scalars)

    def log_evaluation(self, step, evaluation, config, split=None):
        """Records an evaluation: its numbers, what it drew, curves and every detection.

        Args:
          step: after which it was made.
          evaluation: evaluation.evaluate.Evaluation.
          config: Config of the run.
          split: which volumes; those of config.train.evaluation by default.
        """
        split = split or config.train.evaluation.split
        scalars = evaluate.scalars(evaluation.summary)
        self._write(step, {f"{split}/{name}": value for name, value in scalars.items()})
        if not (self.tensorboard or self.wandb.is_on):
            return
        drawn, classes = [answers.of(*pair, config) for pair in evaluation.drawn], config.data.classes
        images = [pixels.of(answer.figure()) for answer in drawn]
        if self.tensorboard:
            found = curves.precision_recall(evaluation.matches, classes)
            title = f"{split}, {len(evaluation.matches)} volumes, mask IoU >= {metrics.MATCH_IOU}"
            shown = {f"{split}/precision_recall": pixels.of(curves.figure(found, title))}
            shown |= {f"{split}/pictures/{a.name}": image for a, image in zip(drawn, images, strict=True)}
            self.tensorboard.images(step, shown)
        self.wandb.log(step, lambda: _media().of_evaluation(evaluation, drawn, images, classes, split))

    def log_inspection(self, step, model, batch, seed, config):
        """Records what trains: histograms of weights, gradients and activations, and pictures of one batch.

        Args:
          step: how many have been made; with that it is clear which stage trains.
          model: MaskRCNN.
          batch: as data/pipeline makes it, of one device, on the host.
          seed: of what is drawn, as `model.compute_losses` takes it.
          config: Config of the run.
        """
        if not (self.tensorboard or self.wandb.is_on):
            return
        weights, learns = dataclasses.asdict(config.train.loss_weights), _stage(config.train, step).learns
        inside = internals.of(model, batch, seed, weights, learns)
        figures = pictures.of_batch(model, batch, seed, config)
        images = {f"train/{name}": pixels.of(figure) for name, figure in figures.items()}
        if self.tensorboard:
            for kind, arrays in inside._asdict().items():
                self.tensorboard.histograms(step, kind, arrays)
            self.tensorboard.images(step, images)
        self.wandb.log(step, lambda: _media().of_inspection(inside, images))

    def log_artifact(self, path, kind, name):
        """Keeps files of the run, of a kind such as "model", with wandb; see `WandbRun.log_artifact`."""
        self.wandb.log_artifact(path, kind, name)

    def close(self):
        """Ends the run; tells how to upload it where it is offline."""
        self.file.close()
        if self.tensorboard:
            self.tensorboard.close()
        self.wandb.close()

    def _write(self, step, scalars):
        self.file.write(step, scalars)
        if self.tensorboard:
            self.tensorboard.scalars(step, scalars)
        self.wandb.log(step, lambda: scalars)


def _media():
    # wandb takes a second to load; it is there only where there is a run.
    from tracking import wandb_media

    return wandb_media


def _stage(train_config, step):
    """The stage of the training that makes, or has just made, a step."""
    stages = train_config.as_stages()
    ends = itertools.accumulate(stage.steps for stage in stages)
    return next((stage for stage, end in zip(stages, ends, strict=True) if step <= end), stages[-1])
