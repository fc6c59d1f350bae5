"""What an evaluation leaves in a folder: metrics.json, metrics.txt and pictures."""

import json

from data.atomic import replacing
from evaluation import answers, evaluate


def write(folder, evaluation, config, min_score=0.5):
    """Writes the pictures of the volumes that were drawn, then metrics.

    Args:
      folder: that can be written.
      evaluation: evaluate.Evaluation.
      config: Config of the network.
      min_score: detections that score less are not drawn.

    Returns:
      str, what metrics.txt holds.
    """
    for pair in evaluation.drawn:
        answer = answers.of(*pair, config, min_score)
        with replacing(folder / f"{answer.name}.png") as temporary:
            answer.figure().savefig(temporary, format="png")
    table = evaluate.table(evaluation.summary)
    for name, text in (("metrics.json", json.dumps(evaluation.summary, indent=2)), ("metrics.txt", table)):
        with replacing(folder / name) as temporary:
            temporary.write_text(text + "\n")
    return table
