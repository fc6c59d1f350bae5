"""Synthetic shapes, small and of high contrast: what `make demo` trains, and the default of every command.

Command:  python train_main.py --strategy=mirrored
          python evaluate_main.py --workdir=runs/shapes_small/model --split=val
Hardware: two CPU cores (Xeon with AVX-512)
Time:     5 minutes (0.17 s per step of two volumes)
Result:   40 held-out volumes (233 objects): mask AP50 0.850, box AP50 0.840, mean mask IoU of matched objects 0.854,
          class accuracy 0.788. Earlier versions, with other first weights or draws: mask AP50 0.808, 0.830, 0.860,
          0.863 and 0.914, class accuracy 0.727, 0.767, 0.780, 0.754 and 0.857
          Form cascade (16, 15 and 14 minutes, the first two on one core, beside others; EPYC, Zen 5), 50 volumes of
          another seed (269 objects): mask AP50 0.999, 0.991 and 0.997, class accuracy 0.985, 0.974 and 0.989; seeds 0,
          1 and 2
"""

from configs import augment_schema, checks, schema, training_forms


def get_config(form="joint"):
    """64^3 voxels, three to eight ellipsoids, cuboids and pyramids well above the noise.

    Args:
      form: "joint", which takes five minutes; "cascade", three box heads, averaged weights and bfloat16, which takes
        longer; "alternating", the four steps of Faster R-CNN in as many steps as "joint"; or "2d", kernels that see one
        slice alone. On the command line: --config=configs/shapes_small.py:cascade
    """
    config = schema.Config(name="shapes_small")
    config.data.records = "runs/shapes_small/records"
    config.data.synthetic = schema.Synthetic(
        shape=(64, 64, 64),
        count=(3, 8),
        base_size=8.5,
        contrast=(4.0, 8.0),
        num_train=200,
        num_val=40,
        num_test=4,
    )
    config.input.augment = augment_schema.light()
    config.model.anchors.sizes = ((9.0, 13.0), (18.0, 24.0), (32.0, 42.0))
    config.train.steps = 1800
    config.train.learning_rate = 1.5e-3
    checks.choice("the form of shapes_small", form, _FORMS)
    _FORMS[form](config)
    return config


def _cascade(config):
    config.model.box_head.cascade_ious = (0.4, 0.6, 0.75)
    config.train.steps, config.train.learning_rate = 3600, 1e-3
    config.train.precision = "mixed_bfloat16"
    config.train.average.name, config.train.average.decay = "ema", 0.998


def _alternating(config):
    train = config.train
    train.stages = training_forms.alternating(train.steps // 4, train.learning_rate)
    # What has stages has no others.
    train.steps, train.learning_rate = schema.Train().steps, schema.Train().learning_rate


def _flat(config):
    backbone = config.model.backbone
    config.model.style.kernel = (1, 3, 3)
    backbone.stem_kernel = (1, *backbone.stem_kernel[1:])
    backbone.stage_kernels = tuple((1, *kernel[1:]) for kernel in backbone.stage_kernels)


_FORMS = {"joint": lambda config: None, "cascade": _cascade, "alternating": _alternating, "2d": _flat}
