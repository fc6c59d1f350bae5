import copy

import numpy as np
import pytest

from configs import nuclei, shapes_small
from data import fingerprint, statistics
from data.errors import InputError
from planning import plan


def found(
    *, spacing=(1.0, 1.0, 1.0), shape=(64, 64, 64), number=60, classes=("ellipsoid", "cuboid", "pyramid"), seed=0
):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(8, 24, (number, 3)).astype(np.float32)
    lo = np.float32(rng.uniform(0, 1, (number, 3)) * (np.array(shape) - sizes)).round()
    cases = number // 6
    return fingerprint.Fingerprint(
        classes=classes,
        boxes=np.concatenate([lo, lo + sizes], axis=1),
        class_ids=(1 + np.arange(number) // 2 % 6 // 3 % len(classes)).astype(np.int32),
        voxels=sizes.prod(axis=1).astype(np.int64),
        cases=np.repeat(np.arange(cases, dtype=np.int32), 6),
        shapes=np.tile(np.array(shape), (cases, 1)),
        spacings=np.tile(np.float32(spacing), (cases, 1)),
        intensities=np.zeros((cases, 2, 1, len(statistics.NAMES)), np.float32),
    )


def sees(config):
    return [tuple(16 * step for step in stride) for stride in config.model.strides()]


def value(planned, name):
    return next(setting.value for setting in planned.settings if setting.name == name)


class MakeTest:
    def test_gives_a_config_that_is_valid_and_the_same_every_time(self):
        config = shapes_small.get_config()
        before = copy.deepcopy(config)
        one, other = (plan.make(config, found(), memory_bytes=4e9, sees=sees) for _ in range(2))
        assert config == before
        one.config.validate()
        assert one.settings == other.settings
        assert all(setting.reason for setting in one.settings)
        for setting in one.settings:
            section = one.config
            for part in setting.name.split("."):
                section = getattr(section, part)
            assert section == setting.value

    def test_thick_slices_are_strided_last(self):
        thick = found(spacing=(4, 1, 1), shape=(48, 192, 192))
        planned = plan.make(shapes_small.get_config(), thick, memory_bytes=8e9, sees=sees)
        planned.config.validate()
        assert value(planned, "model.backbone.stem_stride") == (1, 2, 2)
        assert value(planned, "model.backbone.stem_kernel") == (1, 5, 5)
        assert value(planned, "model.backbone.stage_strides") == ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        assert value(planned, "input.rotate_planes") == ((1, 2),)
        assert value(planned, "input.patch_size") == (48, 192, 192)

    def test_more_memory_never_gives_a_smaller_patch(self):
        large = found(shape=(128, 160, 256))
        voxels = []
        for gigabytes in (0.4, 0.8, 1.6, 3.2):
            planned = plan.make(shapes_small.get_config(), large, memory_bytes=gigabytes * 1e9, sees=sees)
            planned.config.validate()
            assert sum(planned.bytes) <= gigabytes * 1e9
            voxels.append(np.prod(value(planned, "input.patch_size")))
        assert voxels == sorted(voxels)
        assert voxels[0] < voxels[-1]

    def test_a_budget_that_is_too_small_is_said(self):
        planned = plan.make(shapes_small.get_config(), found(), memory_bytes=1e6, sees=sees)
        reason = next(setting.reason for setting in planned.settings if setting.name == "input.patch_size")
        assert "a smaller patch would cut objects: lower train.batch_size" in reason

    def test_short_volumes_lose_the_levels_that_would_stride_no_more(self):
        short = found(shape=(24, 28, 30), number=24)
        config = shapes_small.get_config()
        planned = plan.make(config, short, memory_bytes=4e9, sees=sees)
        planned.config.validate()
        assert value(planned, "model.fpn.levels") == (2, 3)[: len(planned.config.model.strides())]
        assert len(value(planned, "model.anchors.sizes")) == len(planned.config.model.strides()) < 3

    def test_mosaics_keep_whole_tiles(self):
        config = shapes_small.get_config()
        config.input.mosaic, config.input.rotate_planes = (2, 2, 3), ()
        planned = plan.make(config, found(shape=(36, 40, 30)), memory_bytes=8e9, sees=sees)
        planned.config.validate()
        assert (np.array(value(planned, "input.patch_size")) % (2, 2, 3) == 0).all()

    def test_patches_of_mosaics_of_tiles_are_no_larger_than_these(self):
        config = shapes_small.get_config()
        config.input.mosaic, config.input.tile_size, config.input.rotate_planes = (1, 2, 2), (32, 20, 24), ()
        planned = plan.make(config, found(shape=(36, 40, 30)), memory_bytes=8e9, sees=sees)
        planned.config.validate()
        assert (np.array(value(planned, "input.patch_size")) <= (32, 40, 48)).all()

    def test_anchors_fit_better_than_those_of_the_config(self):
        one, config = found(classes=("nucleus",)), nuclei.get_config()
        config.model.anchors.aspects = ((1.0, 1.0, 1.0), (1.0, 2.0, 2.0))
        planned = plan.make(config, one, memory_bytes=4e9, sees=sees)
        from planning import anchors

        before, after = (anchors.fit(planned.levels[name], planned.truths) for name in ("before", "refined"))
        assert after.share_50 > before.share_50
        assert after.share_70 >= before.share_70
        assert {len(sizes) for sizes in value(planned, "model.anchors.sizes")} == {4}

    def test_rare_classes_get_weight(self):
        uneven = found()
        uneven.class_ids[:] = np.where(np.arange(60) < 50, 1, np.where(np.arange(60) < 55, 2, 3))
        planned = plan.make(shapes_small.get_config(), uneven, memory_bytes=4e9, sees=sees)
        weights = value(planned, "model.box_head.class_weights")
        assert value(planned, "model.box_head.class_balance") == 0.5
        assert weights[0] == 1.0
        assert weights[2] / weights[1] == pytest.approx(10**0.5, rel=1e-3)

    def test_nothing_to_plan_for(self):
        with pytest.raises(InputError, match="expected instances in the split train, came none"):
            plan.make(shapes_small.get_config(), found(number=0), memory_bytes=4e9, sees=sees)


class TargetSpacingTest:
    def test_counts_the_cases_that_differ(self):
        mixed = found()
        mixed.spacings[:3] = (1, 2, 1)
        target, reason = plan.target_spacing(mixed)
        assert target == (1, 1, 1)
        assert reason.startswith("3 of 10 cases differ")
        assert plan.target_spacing(found())[1].startswith("0 of 10 cases differ")
