"""What a trained run reaches on volumes that it has not seen."""

import dataclasses
import pathlib

from configs import command_line
from data import records, volumes
from data.atomic import replacing
from evaluation import answers, evaluate
from serving.inference import VolumeDetector
from training import checkpoints, restore


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A run that has ended.

    folder: of the run. config: its Config. detector: serving.inference.VolumeDetector of its last weights.
    """

    folder: pathlib.Path
    config: object
    detector: VolumeDetector

    def evaluate(self, split, folder=None, num_drawn=0):
        """The Evaluation of a split of the config's records, or of those in another folder."""
        truths = self.truths(split, folder)
        return evaluate.evaluate(self.detector, truths, self.config, num_drawn=num_drawn)

    def truths(self, split, folder=None):
        """What data.volumes.of_split gives, of a split of the config's records, or of those in another folder."""
        folder = folder or self.config.data.records
        return volumes.of_split(folder, records.read_manifest(folder), split, self.config.input)


def load(workdir, served=None):
    """The `Trained` of a run's folder: the weights of its last step, which no held-out volume has chosen.

    Args:
      workdir: of the run.
      served: f(config) that changes its Config, if any.
    """
    config = command_line.read_config(checkpoints.read_config_text(workdir))
    if served:
        served(config)
        config.validate()
    model, _ = restore.load_model(workdir, config, "latest")
    return Trained(pathlib.Path(workdir), config, VolumeDetector(model, config))


def measure(task, workdir, unseen=None, picture=None):
    """What a run reaches on the volumes that its task is measured on: {name: float, or None where undefined}.

    Args:
      task: tasks.Task.
      workdir: of the run.
      unseen: folder of records, whose split test is measured; None: val of those of the run.
      picture: path of a PNG file for the first of the volumes; the task's curve goes beside it, to <name>_curve.png.

    Returns:
      dict: those of evaluate.scalars, num_volumes, num_truths and num_matched, and what the task itself measures.
    """
    trained = load(workdir, task.served)
    evaluation = trained.evaluate("test" if unseen else "val", unseen, num_drawn=1)
    if picture:
        with replacing(picture) as temporary:
            answers.of(*evaluation.drawn[0], trained.config).figure().savefig(temporary, format="png")
        if task.draw:
            task.draw(trained, evaluation, unseen, picture.with_name(f"{picture.stem}_curve.png"))
    summary = evaluation.summary
    counts = {name: summary[name] for name in ("num_volumes", "num_truths", "num_matched")}
    own = task.measures(trained, evaluation, unseen) if task.measures else {}
    return {**evaluate.scalars(summary), **counts, **own}
