import numpy as np

from evaluation import answers, report
from tests.tracking import cases


class AnswerTest:
    def test_holds_what_is_drawn(self):
        answer = answers.of(*cases.case(), cases.config())
        assert answer.titles == ["plate 0.90", "plate 0.80", "plate 0.60"]  # the fourth scores less than 0.5
        assert answer.gt_class_names == ["plate", "rod"]
        assert answer.labels.shape == answer.volume.shape == (4, 6, 10)
        np.testing.assert_array_equal(np.unique(answer.labels, return_counts=True), [[0, 1, 2, 3], [184, 24, 24, 8]])
        np.testing.assert_array_equal(answer.labels[:, 4:6, 6:8][:, 0, 0], [0, 3, 3, 0])

    def test_a_lower_score_draws_more(self):
        assert len(answers.of(*cases.case(), cases.config(), min_score=0.0).boxes) == 4
        assert len(answers.of(*cases.case(), cases.config(), min_score=1.0).boxes) == 0

    def test_figure_names_case_and_counts(self):
        figure = answers.of(*cases.case(), cases.config()).figure()
        texts = {text.get_text() for text in figure.texts}
        assert texts == {"detected", "truth (white: missed)", "case_a: 3 detections, 2 truths"}
        assert len(figure.axes) == 6

    def test_truth_has_the_colour_of_what_covers_it(self):
        answer = answers.of(*cases.case(), cases.config())
        colours = report.truth_colours(answer.truth, answer.labels, 3)
        np.testing.assert_array_equal(colours[1:], report.detection_colours(3)[[1, 3]])
