"""What the network is made of: layers, shapes, parameters, receptive fields, memory."""

import dataclasses
import math
import pathlib
import tempfile
import typing

import numpy as np
import tensorflow as tf

from data.atomic import replacing
from debugging import fixed, pictures, trial
from model import receptive_field
from training import internals, weights

DEPTH = 4  # names of a path that are shown: backbone/stages/0/1


class Row(typing.NamedTuple):
    """A layer, or several below one path: output shapes as text, parameters that train and that do not."""

    path: str
    output: str
    trainable: int
    fixed: int


def run(config, manifest, workdir, strategy):
    """Prints the table of layers and what follows from it; writes summary.txt and summary.png to summary/.

    Args:
      config: a Config.
      manifest: has no effect: shapes follow from the config.
      workdir: the run's folder.
      strategy: has no effect: one replica is looked at.

    Returns:
      None: nothing is judged.
    """
    model = fixed.new_model(config)
    found = internals.of(
        model, _zeros(config), fixed.seeds(1, 0), dataclasses.asdict(config.train.loss_weights), trial.JOINT
    )
    shapes = {name: value.shape for name, value in found.activations.items()}
    rows = table_rows(shapes, weights.named_variables(model), {id(v) for v in model.trainable_variables})
    optimizer = trial.make_optimizer(model, config.train, trial.constant(1.0))
    lines = [
        *table(rows),
        "",
        *receptive_field.table(*model.receptive_fields()),
        *model.outgrown_anchors(),
        "",
        *memory_lines(model, optimizer, found.activations),
    ]
    folder, text = pathlib.Path(workdir) / "summary", "\n".join(lines)
    with replacing(folder / "summary.txt") as temporary:
        temporary.write_text(text + "\n")
    _draw(folder / "summary.png", rows)
    print(f"{text}\nsummary in {folder}", flush=True)


def table_rows(shapes, variables, trains, depth=DEPTH):
    """The layers by path, those deeper than `depth` together.

    Args:
      shapes: {layer's path, or path#i of its i-th call: shape of its output}, in the order of calls.
      variables: {path: tf.Variable}.
      trains: ids of those that train.
      depth: names of a path that are shown.

    Returns:
      list of Row. The output is that of the last layer of the row; of one called several times all of its shapes.
    """
    outputs, counts = {}, {}
    for name, shape in shapes.items():
        layer, path = name.split("#")[0], _short(name.split("#")[0], depth)
        before = outputs.get(path, (layer, []))
        outputs[path] = layer, [*(before[1] if before[0] == layer else []), shape]
    for name, variable in variables.items():
        path = _short(name.rsplit("/", 1)[0], depth)
        trained, left = counts.get(path, (0, 0))
        size = math.prod(variable.shape)
        counts[path] = (trained + size, left) if id(variable) in trains else (trained, left + size)
    paths = [*outputs, *(path for path in counts if path not in outputs)]
    texts = {path: ", ".join(dict.fromkeys(_text(shape) for shape in found)) for path, (_, found) in outputs.items()}
    return [Row(path, texts.get(path, "not called"), *counts.get(path, (0, 0))) for path in paths]


def table(rows):
    """Text: one line per row below its module, whose parameters are summed, and the totals."""
    lines, width = [], max(len(row.path) for row in rows) + 4
    outputs = max(len(row.output) for row in rows) + 2

    def line(name, output, trainable, not_trained):
        return f"{name:{width}}{output:{outputs}}{trainable:>14}{not_trained:>12}"

    lines.append(line("layer", "output of an example or roi", "trainable", "fixed"))
    for module in dict.fromkeys(row.path.split("/")[0] for row in rows):
        of_module = [row for row in rows if row.path.split("/")[0] == module]
        lines.append(line(module, "", *_sums(of_module)))
        for row in of_module:
            name = "  " + row.path.removeprefix(f"{module}/")
            lines.append(line(name, row.output, f"{row.trainable:,}", f"{row.fixed:,}"))
    return [*lines, line("total", "", *_sums(rows))]


def memory_lines(model, optimizer, activations):
    """Text about the bytes that a replica holds."""
    parts = {
        "weights": _bytes(model.variables),
        "gradients": _bytes(model.trainable_variables),
        "optimizer": _checkpoint_bytes(optimizer),
    }
    of_layers = sum(value.nbytes for value in activations.values())
    megabytes = ", ".join(f"{name} {value / 2**20:.1f} MB" for name, value in parts.items())
    return [
        f"memory per replica: {megabytes}, together {sum(parts.values()) / 2**20:.1f} MB",
        f"outputs of all layers for one patch, as float32: {of_layers / 2**20:.1f} MB",
    ]


def _zeros(config):
    """A batch of one empty patch."""
    slots, points = config.input.max_instances, len(config.data.keypoints)
    shapes = {
        "volume": ((*config.input.patch_size, config.input.channels), np.float32),
        "instance_ids": (config.input.patch_size, np.int32),
        "boxes": ((slots, 6), np.float32),
        "class_ids": ((slots,), np.int32),
        "attributes": ((slots, len(config.data.attributes)), np.float32),
        "valid": ((slots,), bool),
        "keypoints": ((slots, points, 3), np.float32),
        "keypoints_valid": ((slots, points), bool),
    }
    return {name: tf.zeros([1, *shape], dtype) for name, (shape, dtype) in shapes.items()}


def _short(path, depth):
    return "/".join(path.split("/")[:depth])


def _text(shape):
    """Without the batch, of which rois may have become part."""
    return "[" + ", ".join(str(size) for size in shape[1:]) + "]"


def _sums(rows):
    return f"{sum(row.trainable for row in rows):,}", f"{sum(row.fixed for row in rows):,}"


def _bytes(variables):
    return sum(math.prod(variable.shape) * variable.dtype.size for variable in variables)


def _checkpoint_bytes(optimizer):
    """What an optimizer keeps; of those that wrap another one only a checkpoint holds all of it."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = tf.train.Checkpoint(optimizer=optimizer).write(f"{folder}/optimizer")
        kept = tf.train.load_checkpoint(prefix)
        types, shapes = kept.get_variable_to_dtype_map(), kept.get_variable_to_shape_map()
        return sum(types[name].size * math.prod(shape) for name, shape in shapes.items() if types[name] != tf.string)


def _draw(path, rows):
    """Bars of the parameters of each row."""
    shown = [row for row in rows if row.trainable + row.fixed]
    figure, ((panel,),) = pictures.figure(9, 1 + 0.2 * len(shown))
    names = [row.path for row in shown]
    panel.barh(names, [row.trainable for row in shown], label="trainable")
    panel.barh(names, [row.fixed for row in shown], left=[row.trainable for row in shown], label="fixed")
    panel.tick_params(axis="y", labelsize=7)
    panel.set_xlabel("parameters")
    panel.invert_yaxis()
    panel.legend(fontsize=8)
    pictures.save(path, figure)
