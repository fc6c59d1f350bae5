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


def set_trainable(model, patterns):
    """Lets the layers train of which a variable's name matches a pattern, and freezes all others.

    A frozen layer of batch normalisation uses its moving statistics and leaves them as they are.

    Args:
      model: MaskRCNN, built.
      patterns: "all"; "heads", everything but the backbone; "roi_heads", what is said of rois; "4+", the
        backbone from C4 on and everything behind it; or part of a name, "rpn_head" or "c3_0/first".

    Raises:
      ValueError: a pattern that matches nothing; names it and the parts that there are.
    """
    expressions = [_expression(pattern) for pattern in patterns]
    names = [_name(variable) for variable in model.weights]
    for pattern, expression in zip(patterns, expressions, strict=True):
        if not any(expression.search(name) for name in names):
            parts = ", ".join(sorted({name.split("/")[0] for name in names}))
            raise ValueError(f"train.stages trainable: expected part of a name below {parts}, came {pattern!r}")
    model.trainable = True  # of every layer below as well
    for layer in model.submodules:
        own = _own_weights(layer)
        if own:
            layer.trainable = any(expression.search(_name(v)) for v in own for expression in expressions)


def _expression(pattern):
    if pattern in WORDS:
        return re.compile(WORDS[pattern])
    levels = LEVELS.fullmatch(pattern)
    if levels:
        first = int(levels[1])
        before = "|".join(["stem/"] + [f"c{level}_" for level in range(1, first)])
        return re.compile(rf"^(?!backbone/({before}))") if first > 1 else re.compile("")
    return re.compile(re.escape(pattern))


def _own_weights(module):
    """Variables that a layer itself holds, not those of the layers in it."""
    if not isinstance(module, tf.keras.layers.Layer):
        return []
    return [*module._trainable_weights, *module._non_trainable_weights]


def _name(variable):
    """Without the model's own name and the index of the output: "backbone/stem/conv/kernel"."""
    return variable.name.split("/", 1)[1].split(":")[0]
