import pytest

from configs import backbones

EXPECTED = {
    "resnet": {
        18: ((2, 2, 2, 2), (64, 128, 256, 512), "basic"),
        34: ((3, 4, 6, 3), (64, 128, 256, 512), "basic"),
        50: ((3, 4, 6, 3), (256, 512, 1024, 2048), "bottleneck"),
        101: ((3, 4, 23, 3), (256, 512, 1024, 2048), "bottleneck"),
        152: ((3, 8, 36, 3), (256, 512, 1024, 2048), "bottleneck"),
    },
    "resnext": {
        50: ((3, 4, 6, 3), (256, 512, 1024, 2048), "bottleneck"),
        101: ((3, 4, 23, 3), (256, 512, 1024, 2048), "bottleneck"),
    },
}


class BackbonesTest:
    @pytest.mark.parametrize(("family", "depth"), [(f, d) for f, depths in EXPECTED.items() for d in depths])
    def test_stages_as_in_the_paper(self, family, depth):
        config = getattr(backbones, family)(depth)
        config.validate()
        assert (config.stage_blocks, config.stage_channels, config.block) == EXPECTED[family][depth]
        # A name of a ResNet counts the stem, the convolutions of all blocks and the last, dense layer.
        assert depth == 2 + sum(config.stage_blocks) * (2 if config.block == "basic" else 3)
        assert config.strides() == {level: (2**level,) * 3 for level in (1, 2, 3, 4, 5)}
        assert config.stem_kernel == (7, 7, 7)
        inside = config.stage_channels[0] // config.bottleneck_ratio
        if family == "resnext":
            assert (config.cardinality, inside) == (32, 32 * 4)
        elif config.block == "bottleneck":
            assert (config.cardinality, inside) == (1, 64)

    def test_plain(self):
        config = backbones.plain()
        config.validate()
        assert config.strides() == {level: (2 ** (level - 1),) * 3 for level in (1, 2, 3, 4, 5)}
        assert config.stage_channels == (16, 32, 64, 128, 256)
        assert config.stage_kernels == ((5, 5, 5),) * 5

    @pytest.mark.parametrize(
        ("family", "depth", "words"),
        [
            ("resnet", 20, "ResNet: expected a depth of 18, 34, 50, 101, 152, came 20"),
            ("resnext", 152, "ResNeXt: expected a depth of 50, 101, came 152"),
        ],
    )
    def test_another_depth_is_an_error_that_names_the_choices(self, family, depth, words):
        with pytest.raises(ValueError, match=words):
            getattr(backbones, family)(depth)

    def test_each_call_gives_a_section_of_its_own(self):
        first = backbones.resnet(50)
        first.dropout = 0.5
        assert backbones.resnet(50).dropout == 0.0
