"""Backbones of the papers, with kernels of three axes, for `config.model.backbone`."""

from configs.model_schema import Backbone

# Residual blocks of the four stages.
BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
RESNEXT = {50: BOTTLENECK[50], 101: BOTTLENECK[101]}


def resnet(depth):
    """ResNet-18, 34, 50, 101 or 152 (He et al. 2016): levels 1 to 5 of stride 2 to 32; a pyramid takes 2 to 5."""
    blocks = _choose("ResNet", depth, BASIC | BOTTLENECK)
    if depth in BASIC:
        return _residual(blocks, block="basic", stage_channels=(64, 128, 256, 512))
    return _residual(blocks, block="bottleneck", stage_channels=(256, 512, 1024, 2048))


def resnext(depth):
    """ResNeXt-50 or 101, 32x4d (Xie et al. 2017): the ResNet with 32 groups inside a block of half its width."""
    blocks = _choose("ResNeXt", depth, RESNEXT)
    channels = (256, 512, 1024, 2048)
    return _residual(blocks, block="bottleneck", stage_channels=channels, bottleneck_ratio=2, cardinality=32)


def plain():
    """Five convolutions of 5x5x5 with max-pooling between: levels 1 to 5 of stride 1 to 16."""
    return Backbone(
        kind="plain",
        stage_channels=(16, 32, 64, 128, 256),
        stage_blocks=(1,) * 5,
        stage_kernels=((5, 5, 5),) * 5,
        stage_strides=((1, 1, 1),) + ((2, 2, 2),) * 4,
    )


def _residual(blocks, **settings):
    """A stem of 7x7x7 and max-pooling, each of stride 2, and four stages."""
    return Backbone(
        kind="resnet",
        stem_channels=64,
        stem_kernel=(7, 7, 7),
        stem_stride=(2, 2, 2),
        stem_pool=(2, 2, 2),
        stage_blocks=blocks,
        stage_kernels=((3, 3, 3),) * 4,
        stage_strides=((1, 1, 1),) + ((2, 2, 2),) * 3,
        **settings,
    )


def _choose(name, depth, choices):
    if depth not in choices:
        raise ValueError(f"{name}: expected a depth of {', '.join(map(str, choices))}, came {depth!r}")
    return choices[depth]
