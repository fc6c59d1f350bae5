import dataclasses
import re

import pytest

from configs import augment_schema

PATCH = (96, 64, 48)


class AugmentTest:
    @pytest.mark.parametrize("patch", [PATCH, (8, 16, 24)])
    def test_defaults_are_valid_and_stay_as_they_are(self, patch):
        settings = augment_schema.Augment()
        settings.validate(patch)
        assert settings == augment_schema.Augment()

    def test_a_misspelt_field_is_an_error(self):
        with pytest.raises(AttributeError):
            augment_schema.Augment().nosie = 1
        with pytest.raises(TypeError):
            augment_schema.Affine(angle=3)

    def test_every_instance_has_sections_of_its_own(self):
        first, second = augment_schema.Augment(), augment_schema.Augment()
        first.blur.probability = 0.9
        first.affine.scale = (1.0, 1.0)
        assert second == augment_schema.Augment()

    def test_every_step_has_a_probability(self):
        settings = augment_schema.Augment()
        sections = [getattr(settings, f.name) for f in dataclasses.fields(settings)]
        sections = [section for section in sections if dataclasses.is_dataclass(section)]
        assert len(sections) == 10
        for section in sections:
            section.probability = 1.5
            with pytest.raises(ValueError, match=r"probability: expected a number in \[0, 1\], came 1.5"):
                settings.validate(PATCH)
            section.probability = 0.5

    @pytest.mark.parametrize(
        ("section", "field", "value", "words"),
        [
            ("affine", "rotation", ((0, 1), (0, 1)), "affine.rotation: expected three intervals (z, y, x)"),
            ("affine", "rotation", ((0, 1), (0, 1), (0, 270)), "expected (low, high) with -180 <= low <= high <= 180"),
            (
                "affine",
                "scale",
                (0, 1.2),
                "affine.scale: expected (low, high) with 0.1 <= low <= high <= 10, came (0, 1.2)",
            ),
            ("affine", "scale", (1.2, 0.8), "affine.scale: expected (low, high)"),
            ("affine", "scale", 1.2, "affine.scale: expected (low, high)"),
            ("affine", "shear", (-2.0, 0.0), "affine.shear: expected (low, high) with -1 <="),
            ("elastic", "grid", (8, 0, 8), "elastic.grid: expected three integers >= 1"),
            ("elastic", "magnitude", (0, 10), "elastic.magnitude: expected (low, high) with 0 <= low <= high <= 9.6"),
            ("low_resolution", "interval", (0, 1), "low_resolution.interval: expected (low, high) with 0.05"),
            ("low_resolution", "axes", (True, 1, True), "low_resolution.axes: expected three booleans (z, y, x)"),
            ("blur", "interval", (0, 1), "blur.interval: expected (low, high) with 0.01 <= low <= high <= 48"),
            ("gamma", "interval", (0, 1), "gamma.interval: expected (low, high) with 0.1"),
            ("contrast", "interval", (-1, 1), "contrast.interval: expected (low, high) with 0 <="),
            ("brightness", "interval", (1, -1), "brightness.interval: expected (low, high)"),
            ("noise", "interval", (-0.1, 0.1), "noise.interval: expected (low, high) with 0 <="),
            ("paste", "count", 0, "paste.count: expected >= 1, came 0"),
            ("paste", "blend", -1, "paste.blend: expected >= 0, came -1"),
            ("paste", "max_covered", 2.0, "paste.max_covered: expected a number in [0, 1], came 2.0"),
        ],
    )
    def test_what_is_refused(self, section, field, value, words):
        settings = augment_schema.Augment()
        setattr(getattr(settings, section), field, value)
        with pytest.raises(ValueError, match=re.escape(words)):
            settings.validate(PATCH)

    @pytest.mark.parametrize("field", ["gamma_invert", "channel_drop"])
    def test_single_probabilities(self, field):
        settings = augment_schema.Augment()
        setattr(settings, field, -0.1)
        with pytest.raises(ValueError, match=rf"input.augment.{field}: expected a number in \[0, 1\], came -0.1"):
            settings.validate(PATCH)

    def test_a_mosaic_has_to_divide_the_patch(self):
        settings = augment_schema.Augment()
        settings.mosaic.grid = (2, 5, 2)
        settings.validate(PATCH)
        settings.mosaic.probability = 0.1
        with pytest.raises(ValueError, match=re.escape("mosaic.grid: expected divisors of patch_size (96, 64, 48)")):
            settings.validate(PATCH)


class FormsTest:
    @pytest.mark.parametrize(
        ("form", "drawn"), [(augment_schema.none, set()), (augment_schema.light, {"contrast", "brightness"})]
    )
    def test_nothing_else_is_drawn(self, form, drawn):
        augment = form()
        augment.validate(PATCH)
        sections = {field.name: getattr(augment, field.name) for field in dataclasses.fields(augment)}
        effects = {name: section for name, section in sections.items() if dataclasses.is_dataclass(section)}
        assert {name for name, effect in effects.items() if effect.probability} == drawn
        assert augment.channel_drop == 0.0
