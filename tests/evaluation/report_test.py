import sys

import matplotlib.image
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from configs.synthetic_schema import Synthetic
from data import synthetic
from evaluation.report import detection_colours, draw_slices, outlines, slices_figure, truth_colours

SHAPE = (5, 7, 11)
BOX = [1.0, 2.0, 3.0, 3.0, 5.0, 9.0]


class DrawSlicesTest:
    def test_writes_a_png_and_nothing_else(self, tmp_path):
        volume, labels = _scene()
        draw_slices(tmp_path / "a.png", volume, labels, [BOX], ["cuboid 0.93"], truth=labels, title="step 100")
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
        assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        picture = matplotlib.image.imread(tmp_path / "a.png")
        assert min(picture.shape[:2]) > 400

    def test_the_mask_is_tinted_in_the_colour_of_its_detection(self, tmp_path):
        volume, labels = _scene()
        draw_slices(tmp_path / "with.png", volume, labels, [BOX], ["a"])
        draw_slices(tmp_path / "without.png", volume, 0 * labels, [BOX], ["a"])
        tinted, plain = (matplotlib.image.imread(tmp_path / f"{n}.png")[..., :3] for n in ("with", "without"))
        changed = (tinted != plain).any(axis=-1)
        tint = (tinted - plain)[changed].mean(axis=0)
        red, green, blue = detection_colours(1)[1]
        assert red > green > blue
        assert tint[0] > tint[1] > tint[2]

    def test_replaces_an_older_picture(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"old")
        draw_slices(tmp_path / "a.png", *_scene(), [BOX], ["a"])
        assert (tmp_path / "a.png").stat().st_size > 1000

    def test_an_error_leaves_the_older_picture(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"old")
        with pytest.raises(ValueError, match="names must be one per box"):
            draw_slices(tmp_path / "a.png", *_scene(), [BOX], [])
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]

    def test_synthetic_volume(self, tmp_path):
        settings = Synthetic(shape=(40, 44, 52), count=(5, 8), base_size=5.0, contrast=(0.5, 1.0))
        image, ids, class_ids, _, _ = synthetic.draw("shapes", settings, 4)
        boxes = [[*p.min(axis=0), *(p.max(axis=0) + 1)] for p in (np.argwhere(ids == i + 1) for i in range(ids.max()))]
        names = [f"{synthetic.CLASSES['shapes'][k - 1]} 0.90" for k in class_ids]
        draw_slices(tmp_path / "a.png", image.astype(np.float32), ids, boxes, names, truth=ids)
        assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].std() > 0.1

    def test_keeps_no_state_of_pyplot(self, tmp_path):
        draw_slices(tmp_path / "a.png", *_scene(), [BOX], ["a"])
        pyplot = sys.modules.get("matplotlib.pyplot")
        assert pyplot is None or pyplot.get_fignums() == []


class SlicesFigureTest:
    def test_pixels_span_whole_voxels(self):
        panels = _figure().axes
        assert [p.images[0].get_extent() for p in panels] == [[0, 11, 7, 0], [0, 11, 5, 0], [0, 7, 5, 0]]
        assert [(p.get_xlabel(), p.get_ylabel()) for p in panels] == [
            ("x [voxels]", "y [voxels]"),
            ("x [voxels]", "z [voxels]"),
            ("y [voxels]", "z [voxels]"),
        ]

    def test_slices_go_through_the_best_box(self):
        titles = [p.get_title(loc="left") for p in _figure().axes]
        assert titles == ["z = 2 of 5", "y = 3 of 7", "x = 6 of 11"]

    def test_panels_show_the_planes(self):
        volume, _ = _scene()
        shown = [np.asarray(p.images[0].get_array()) for p in _figure().axes]
        for plane, expected in zip(shown, (volume[2], volume[:, 3], volume[:, :, 6]), strict=True):
            np.testing.assert_array_equal(plane, expected)

    def test_boxes_lie_on_voxel_borders(self):
        rectangles = [_rectangles(p) for p in _figure().axes]
        assert rectangles == [{(3.0, 2.0, 6.0, 3.0)}, {(3.0, 1.0, 6.0, 2.0)}, {(2.0, 1.0, 3.0, 2.0)}]

    @pytest.mark.parametrize(("z", "crossed"), [(0.9, False), (1.0, True), (2.9, True), (3.0, False)])
    def test_only_boxes_that_the_slice_crosses_are_drawn(self, z, crossed):
        panel = _figure(centre=(z, 3, 6)).axes[0]
        assert (bool(_rectangles(panel)), bool(panel.texts)) == (crossed, crossed)

    def test_names_stand_on_their_boxes(self):
        texts = [[t.get_text() for t in p.texts] for p in _figure().axes]
        assert texts == [["cuboid 0.93"]] * 3

    def test_names_of_equal_boxes_do_not_overlap(self):
        volume, labels = _scene()
        figure = _figure(volume, labels, [BOX, BOX, BOX], ["cuboid 0.93", "pyramid 0.91", "ellipsoid 0.90"])
        renderer = figure.canvas.get_renderer()
        extents = [t.get_window_extent(renderer) for t in figure.axes[0].texts]
        overlaps = [a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i]]
        assert overlaps == [False] * 3

    def test_a_dollar_sign_is_no_formula(self):
        figure = _figure(*_scene(), [BOX], [r"$\bad{$ 0.93"])
        figure.canvas.draw()
        assert figure.axes[0].texts[0].get_text() == r"$\bad{$ 0.93"

    def test_spacing_sets_the_shape_of_the_panels(self):
        sizes = _panel_inches(_figure(spacing=(3.0, 1.0, 1.0)))
        ratios = [w / h for w, h in sizes]
        assert ratios == pytest.approx([11 / 7, 11 / 15, 7 / 15])
        # All three at one scale.
        assert sizes[0][0] == pytest.approx(sizes[1][0])

    def test_thin_panels_are_stretched_and_say_so(self):
        figure = _figure(np.ones((1, 70, 110)), np.zeros((1, 70, 110), np.int32), [], [])
        titles = [p.get_title(loc="left") for p in figure.axes]
        assert titles == ["z = 0 of 1", "y = 35 of 70, not to scale", "x = 55 of 110, not to scale"]
        assert min(height for _, height in _panel_inches(figure)) == pytest.approx(0.6)

    def test_truth_makes_a_second_row(self):
        volume, labels = _scene()
        figure = _figure(truth=np.roll(labels, 1, axis=2))
        assert len(figure.axes) == 6
        assert [t.get_text() for t in figure.texts] == ["detected", "truth (white: missed)", "step 100"]
        np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), volume[2])

    def test_no_detections(self):
        volume, labels = _scene()
        figure = _figure(volume, 0 * labels, np.zeros((0, 6)), [])
        assert figure.texts[0].get_text() == "nothing detected"
        assert [p.get_title(loc="left") for p in figure.axes] == ["z = 2 of 5", "y = 3 of 7", "x = 5 of 11"]

    def test_a_centre_outside_is_moved_onto_the_border(self):
        titles = [p.get_title(loc="left") for p in _figure(centre=(-3, 7, 99)).axes]
        assert titles == ["z = 0 of 5", "y = 6 of 7", "x = 10 of 11"]

    @pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
    def test_a_constant_volume_has_a_grey_window(self, value):
        _, labels = _scene()
        low, high = _figure(np.full(SHAPE, value), labels).axes[0].images[0].get_clim()
        assert high - low == 1.0

    def test_outliers_do_not_set_the_grey_window(self):
        volume = np.random.default_rng(0).random((20, 30, 40))
        volume[0, 0, 0], volume[1, 1, 1] = 1e6, np.inf
        low, high = _figure(volume, np.zeros(volume.shape, np.int32), [], []).axes[0].images[0].get_clim()
        assert 0 <= low < high <= 1

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"volume": np.zeros((5, 7))}, r"volume must be \[Z, Y, X\] with voxels in it, got shape \(5, 7\)"),
            (
                {"labels": np.zeros((5, 7, 1), int)},
                r"labels must have the volume's shape \(5, 7, 11\), got \(5, 7, 1\)",
            ),
            (
                {"truth": np.zeros((1, 7, 11), int)},
                r"truth must have the volume's shape \(5, 7, 11\), got \(1, 7, 11\)",
            ),
            ({"truth": np.full(SHAPE, -1)}, "truth must be 0 or more, got -1"),
            ({"labels": np.full(SHAPE, 2)}, r"labels must be 0..1, got 2..2"),
            ({"names": ["a", "b"]}, r"names must be one per box \(1\), got 2"),
        ],
    )
    def test_arguments_that_disagree_are_named(self, change, words):
        with pytest.raises(ValueError, match=words):
            _figure(**change)


class OutlinesTest:
    def test_single_pixel_has_four_edges(self):
        plane = np.zeros((3, 5), np.int32)
        plane[1, 3] = 4
        segments = outlines(plane)
        assert list(segments) == [4]
        assert _edges(segments[4]) == {(3, 1, 4, 1), (3, 2, 4, 2), (3, 1, 3, 2), (4, 1, 4, 2)}

    def test_neighbours_share_an_edge_and_the_border_closes(self):
        segments = outlines(np.array([[1, 2]], np.int32))
        assert (0, 0, 0, 1) in _edges(segments[1])
        assert _edges(segments[1]) & _edges(segments[2]) == {(1, 0, 1, 1)}

    def test_no_labels(self):
        assert outlines(np.zeros((3, 5), np.int32)) == {}

    def test_length_is_the_perimeter(self):
        plane = np.zeros((9, 12), np.int32)
        plane[2:6, 3:10] = 1
        assert len(outlines(plane)[1]) == 2 * (4 + 7)


class ColoursTest:
    def test_detections_differ(self):
        colours = detection_colours(40)
        assert colours.shape == (41, 3)
        distances = np.abs(colours[1:, None] - colours[None, 1:]).sum(axis=-1) + 9 * np.eye(40)
        assert distances.min() > 0.05

    def test_truths_take_the_colour_of_the_detection_that_covers_them_most(self):
        truth = np.array([[[1, 1, 1, 2, 2, 0, 3]]], np.int32)
        labels = np.array([[[2, 1, 1, 0, 2, 2, 0]]], np.int32)
        colours = truth_colours(truth, labels, 2)
        expected = detection_colours(2)
        np.testing.assert_array_equal(colours[1:], [expected[1], expected[2], (1.0, 1.0, 1.0)])

    def test_all_truths_are_missed_without_detections(self):
        truth = np.array([[[0, 1, 2]]], np.int32)
        assert truth_colours(truth, 0 * truth, 0)[1:].tolist() == [[1.0, 1.0, 1.0]] * 2


def _scene():
    volume = np.random.default_rng(0).random(SHAPE)
    labels = np.zeros(SHAPE, np.int32)
    labels[1:3, 2:5, 3:9] = 1
    return volume, labels


def _figure(volume=None, labels=None, boxes=(BOX,), names=("cuboid 0.93",), spacing=(1, 1, 1), centre=None, truth=None):
    scene = _scene()
    return slices_figure(
        scene[0] if volume is None else volume,
        scene[1] if labels is None else labels,
        boxes,
        names,
        spacing=spacing,
        centre=centre,
        truth=truth,
        title="step 100",
    )


def _rectangles(panel):
    patches = [p for p in panel.patches if isinstance(p, Rectangle)]
    return {(*p.get_xy(), p.get_width(), p.get_height()) for p in patches}


def _panel_inches(figure):
    width, height = figure.get_size_inches()
    return [(p.get_position().width * width, p.get_position().height * height) for p in figure.axes]


def _edges(segments):
    return {tuple(map(int, segment.ravel())) for segment in segments}
