import matplotlib.image
import pytest

from data import synthetic
from docs import pictures


class PicturesTest:
    def test_every_set_is_shown(self):
        assert set(pictures.SHOWN) == set(synthetic.CLASSES)

    @pytest.mark.parametrize("kind", pictures.SHOWN)
    def test_is_small_and_has_outlines_in_colour(self, tmp_path, kind):
        pictures.draw(kind, tmp_path / "a.png")
        assert (tmp_path / "a.png").stat().st_size < 150_000
        pixels = matplotlib.image.imread(tmp_path / "a.png")[..., :3]
        assert pixels.std() > 0.1
        # What is measured is grey, above; the truth is outlined in bright colours, below.
        coloured = pixels.max(axis=-1) - pixels.min(axis=-1) > 0.5
        above, below = coloured[: len(pixels) // 2], coloured[len(pixels) // 2 :]
        assert above.sum() == 0
        assert below.sum() > 100

    @pytest.mark.parametrize("kind", pictures.SHOWN)
    def test_the_one_in_the_folder_is_of_the_same_size(self, tmp_path, kind):
        pictures.draw(kind, tmp_path / "a.png")
        kept, drawn = (
            matplotlib.image.imread(f) for f in (pictures.FOLDER / f"synthetic_{kind}.png", tmp_path / "a.png")
        )
        assert kept.shape == drawn.shape
