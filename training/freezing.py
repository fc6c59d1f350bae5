"""Which variables train, chosen by patterns of their names."""

import re

import tensorflow as tf

# Every pattern is a word with a meaning of its own, or a part of a name.
WORDS = {
    "all": r"",
    "heads": r"^(?!backbone/)",
    "roi_heads": r"^(box_head\d*|mask_head|attribute_head|keypoint_head)/",
}
LEVELS = re.compile(r"(\d+)\+")
# What the gradients of the losses of each kind reach; rois do not read the extra level of the pyramid, and the
# segmentation reads the finest alone.
REACHED = {
    "rpn": r"^(backbone|fpn|rpn_head)/",
    "heads": r"^(backbone|fpn(?!/extra)|segmentation|box_head\d*|mask_head|attribute_head|keypoint_head)/",
    "segmentation": r"^(backbone|fpn/lateral\d+|fpn/smooth{finest}|segmentation)/",
    "classifier": r"^(backbone|classifier)/",
    "attributes": r"^attribute_head/",
}


def set_trainable(model, patterns):
    """Lets the layers train of which a variable's name matches a pattern, and freezes all others.

    A frozen layer of batch normalisation uses its moving statistics and leaves them as they are.

    Args:
      model: MaskRCNN, built.
      patterns: "all"; "heads", everything but the backbone; "roi_heads", what is said of rois; "4+", the
        backbone from C4 on and everything behind it; or part of a name, "rpn_head" or "c3_0/first", of which a
        number is meant whole: "c4_2" is not "c4_20".

    Raises:
      ValueError: a pattern that matches nothing; names it and what there is.
    """
    names = [_name(variable) for variable in model.weights]
    for pattern in patterns:
        _check(pattern, names)
    expressions = [_expression(pattern) for pattern in patterns]
    model.trainable = True  # of every layer below as well
    for layer in model.submodules:
        own = _own_weights(layer)
        if own:
            layer.trainable = any(expression.search(_name(v)) for v in own for expression in expressions)


def learnt(model, learns):
    """Variables that train and that the losses of `learns`, several of `REACHED`, reach."""
    finest = model.config.fpn.levels[0]
    reached = [re.compile(REACHED[kind].format(finest=finest)) for kind in learns]
    return [v for v in model.trainable_variables if any(expression.search(_name(v)) for expression in reached)]


def _check(pattern, names):
    """Raises ValueError for a level that the backbone does not have, or a pattern that is part of no name."""
    levels = LEVELS.fullmatch(pattern)
    if levels:
        own = {name.split("/")[1].split("_")[0] for name in names if name.startswith("backbone/")}
        own = sorted({"stem": "c1"}.get(level, level) for level in own)
        if f"c{levels[1]}" not in own:
            raise ValueError(f"train.stages trainable: expected a level of {', '.join(own)}, came {pattern!r}")
    elif not any(_expression(pattern).search(name) for name in names):
        parts = ", ".join(sorted({name.split("/")[0] for name in names}))
        raise ValueError(f"train.stages trainable: expected part of a name below {parts}, came {pattern!r}")


def _expression(pattern):
    if pattern in WORDS:
        return re.compile(WORDS[pattern])
    levels = LEVELS.fullmatch(pattern)
    if levels:
        first = int(levels[1])
        before = "|".join(["stem/"] + [f"c{level}_" for level in range(1, first)])
        return re.compile(rf"^(?!backbone/({before}))") if first > 1 else re.compile("")
    # A number at either end of a part is whole.
    before, after = r"(?<!\d)" * pattern[0].isdigit(), r"(?!\d)" * pattern[-1].isdigit()
    return re.compile(f"{before}{re.escape(pattern)}{after}")


def _own_weights(module):
    """Variables that a layer itself holds, not those of the layers in it."""
    if not isinstance(module, tf.keras.layers.Layer):
        return []
    return [*module._trainable_weights, *module._non_trainable_weights]


def _name(variable):
    """Without the model's own name and the index of the output: "backbone/stem/conv/kernel"."""
    return variable.name.split("/", 1)[1].split(":")[0]
