"""The backbone that a config asks for."""

import functools
import math

from model.plain import Plain
from model.resnet import BasicBlock, Bottleneck, ResNet


def make(config, style, *, up_to=None, **kwargs):
    """Makes the backbone.

    Args:
      config: section `model.backbone`.
      style: section `model.style`.
      up_to: the coarsest level that is looked at; the stages after it are not made. None for all.
      **kwargs: to the layer, its name for instance.

    Returns:
      A Keras layer, called as layer(volume [B, Z, Y, X, C], training) -> {level: [B, ceil(Z / stride), ..., width]} of
      all levels of `config.strides()` up to that one, finest first; any C. Its `windows` are for
      model/receptive_field.py.
    """
    num_levels = len(config.strides()) if up_to is None else list(config.strides()).index(up_to) + 1
    used = num_levels - 1 if config.kind == "resnet" else num_levels  # the first level of a ResNet is the stem's
    stages = {
        "stage_channels": tuple(_width(config, style, channels) for channels in config.stage_channels[:used]),
        "stage_blocks": config.stage_blocks[:used],
        "stage_kernels": config.stage_kernels[:used],
        "stage_strides": config.stage_strides[:used],
        "dropout": config.dropout,
        "style": style,
    }
    if config.kind == "plain":
        return Plain(**stages, **kwargs)
    return ResNet(
        stem_channels=scaled_width(config.stem_channels, config.width_multiplier, _norm_groups(style)),
        stem_kernel=config.stem_kernel,
        stem_stride=config.stem_stride,
        stem_pool=config.stem_pool,
        make_block=_block(config),
        stochastic_depth=config.stochastic_depth,
        **stages,
        **kwargs,
    )


def _block(config):
    if config.block == "basic":
        return BasicBlock
    return functools.partial(
        Bottleneck,
        ratio=config.bottleneck_ratio,
        groups=config.cardinality,
        stride_in_pointwise=config.stride_in_pointwise,
    )


def _width(config, style, channels):
    """Channels that leave a stage."""
    divisor = _norm_groups(style)
    if config.kind == "resnet" and config.block == "bottleneck":
        # The convolution inside has so many times fewer, and these must fit both kinds of groups.
        divisor = config.bottleneck_ratio * math.lcm(config.cardinality, divisor)
    return scaled_width(channels, config.width_multiplier, divisor)


def _norm_groups(style):
    return style.norm_groups if style.norm == "group" else 1


def scaled_width(channels, multiplier, divisor):
    """Channels times the multiplier, as the nearest positive multiple of the divisor; as they are where it is 1."""
    if multiplier == 1:
        return channels
    return max(round(channels * multiplier / divisor), 1) * divisor
