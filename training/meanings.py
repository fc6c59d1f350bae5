"""Settings that decide what weights mean, also where their shapes do not show it."""

import re

# Variables that are worth nothing under another value of a setting: the two logits of a softmax are not two anchors,
# and every row of the first dense layer behind a roi is about one place in it.
_BREAKS = (
    (re.compile(r"rpn_head/objectness/(kernel|bias)"), "rpn", "objectness"),
    (re.compile(r"(box_heads/\d+|attribute_head)/dense/layers/0/0/kernel"), "box_head", "roi_size"),
    (re.compile(r"attribute_head/values/(kernel|bias)"), "attribute_head", "scale"),
    (re.compile(r"attribute_head/((values|factors)/(kernel|bias)|powers/kernel|layers/.*)"), "attribute_head", "sums"),
)
# The same of a head that has no dense layers before its outputs.
_BREAKS_WITHOUT_DENSE = (
    (re.compile(r"box_heads/\d+/(logits|deltas)/kernel"), "box_head"),
    (re.compile(r"attribute_head/(values|factors)/kernel"), "attribute_head"),
)
# Settings under which weights that were learnt for another value are a beginning, if not what they were.
_SHIFTS = {
    "style": ("activation",),
    "backbone": ("stem_stride", "stem_pool", "stage_strides", "stride_in_pointwise"),
    "fpn": ("levels", "extra", "upsampling", "bottom_up"),
    "anchors": ("sizes", "aspects"),
    "rois": ("canonical_size",),
    "box_head": ("roi_size", "delta_weights"),
    "mask_head": ("roi_size",),
    "keypoint_head": ("roi_size",),
}


def broken(name, theirs, ours):
    """Why a variable of the same shape is not to be used, or None.

    Args:
      name: of the variable, as in a checkpoint.
      theirs: the `model` section of the config it was trained with, as JSON holds it.
      ours: that of the model, likewise.

    Returns:
      str or None. A setting that either of them does not know counts as equal.
    """
    direct = [
        (pattern, "box_head", "roi_size")
        for pattern, head in _BREAKS_WITHOUT_DENSE
        if ours.get(head, {}).get("num_dense") == 0
    ]
    for pattern, section, field in (*_BREAKS, *direct):
        if pattern.fullmatch(name) and _differs(theirs, ours, section, field):
            return _line(theirs, ours, section, field)
    return None


def shifted(theirs, ours):
    """One line for every setting under which loaded weights meet something else than they learnt: list of str."""
    return [
        f"{_line(theirs, ours, section, field)}; what is loaded learnt the former"
        for section, fields in _SHIFTS.items()
        for field in fields
        if _differs(theirs, ours, section, field)
    ]


def _differs(theirs, ours, section, field):
    knows = field in theirs.get(section, {}) and field in ours.get(section, {})
    return knows and theirs[section][field] != ours[section][field]


def _line(theirs, ours, section, field):
    return f"model.{section}.{field} {theirs[section][field]} in the file, {ours[section][field]} in the model"
