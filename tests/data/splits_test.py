import collections
import itertools
import json

import numpy as np
import pytest

from configs import schema
from data import splits
from data.cases import CaseFiles
from data.errors import InputError
from data.lazy import LazyArray
from data.splits import SPLITS, assign, class_counts, distribute
from data.writers import write_volume

SHAPE = (5, 7, 11)


def cases_of(names, folder=None, **stated):
    return [CaseFiles(n, (folder,), folder and folder / f"{n}_labels.npz", stated.get(n)) for n in names]


def config_of(**changes):
    return schema.Data(**{"classes": ("cell",), "stratify": False, **changes})


def write_groups(folder, *lines, header="case,group"):
    path = folder / "groups.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def sizes_of(assigned):
    return tuple(list(assigned.values()).count(split) for split in SPLITS)


class DrawTest:
    @pytest.mark.parametrize(
        ("count", "fractions", "expected"),
        [
            (10, (0.8, 0.1, 0.1), (8, 1, 1)),
            (4, (0.8, 0.1, 0.1), (3, 1, 0)),
            (1, (0.8, 0.1, 0.1), (1, 0, 0)),
            (3, (1.0, 0.0, 0.0), (3, 0, 0)),
            (7, (0.0, 0.5, 0.5), (0, 4, 3)),
            (0, (0.8, 0.1, 0.1), (0, 0, 0)),
        ],
    )
    def test_numbers_follow_the_fractions(self, count, fractions, expected):
        config = config_of(split_fractions=fractions)
        names = [f"case{i}" for i in range(count)]
        assert sizes_of(assign(cases_of(names), config)) == expected
        # Whatever the objects are.
        rng = np.random.default_rng(0)
        config.stratify, config.classes = True, ("a", "b", "c")
        counts = {name: rng.poisson(1, 3) for name in names}
        assert sizes_of(assign(cases_of(names), config, lambda files, _: counts[files.name])) == expected

    def test_the_draw_depends_on_seed_and_names_alone(self):
        names = [f"case{i}" for i in range(20)]
        drawn = assign(cases_of(names), config_of(split_seed=3))
        assert drawn == assign(cases_of(reversed(names)), config_of(split_seed=3))
        # Written down: the same on every machine, with every version of NumPy.
        others = {name: split for name, split in drawn.items() if split != "train"}
        assert others == {"case1": "test", "case16": "val", "case19": "test", "case9": "val"}
        assert len({tuple(assign(cases_of(names), config_of(split_seed=s)).values()) for s in range(5)}) == 5

    def test_what_is_stated_stays(self):
        assigned = assign(cases_of("abcdefghij", a="test", b="val", c="train"), config_of(split_fractions=(0, 0, 1)))
        assert [assigned[name] for name in "abc"] == ["test", "val", "train"]
        assert sizes_of(assigned) == (1, 1, 8)

    def test_labels_are_not_read_where_nothing_is_drawn(self):
        assigned = assign(cases_of("ab", a="val", b="train"), config_of(stratify=True), lambda *_: pytest.fail("read"))
        assert assigned == {"a": "val", "b": "train"}


class GroupsTest:
    @pytest.mark.parametrize("seed", range(4))
    def test_are_never_torn(self, tmp_path, seed):
        rng = np.random.default_rng(seed)
        names = [f"scan{i:02d}" for i in range(40)]
        patients = {name: f"patient{rng.integers(12)}" for name in names}
        groups = write_groups(tmp_path, *(f"{name},{patient}" for name, patient in patients.items()))
        config = config_of(groups=groups, split_seed=seed, stratify=True, classes=("a", "b"))
        counts = {name: rng.poisson(1, 2) for name in names}
        for folds, fold in ((0, 0), (3, 0), (3, 2)):
            config.folds, config.fold = folds, fold
            assigned = assign(cases_of(names), config, lambda files, _: counts[files.name])
            where = collections.defaultdict(set)
            for name, split in assigned.items():
                where[patients[name]].add(split)
            assert all(len(found) == 1 for found in where.values())
            assert len(set(assigned.values())) == (2 if folds else 3)

    def test_large_groups_go_where_there_is_room(self, tmp_path):
        # 16 cases: 12, 2 and 2. The group of 12 fits into train alone, then each pair into one of the others.
        lines = [f"{i},{group}" for i, group in enumerate("a" * 12 + "bbcc")]
        config = config_of(groups=write_groups(tmp_path, *lines), split_fractions=(0.75, 0.125, 0.125))
        assigned = assign(cases_of([str(i) for i in range(16)]), config)
        assert sizes_of(assigned) == (12, 2, 2)
        assert {assigned[str(i)] for i in range(12)} == {"train"}

    def test_stated_of_a_group_or_of_one_of_its_cases_holds_for_all(self, tmp_path):
        lines = ("a,1,test", "b,1,", "c,2,", "d,2,", "e,3,")
        config = config_of(
            groups=write_groups(tmp_path, *lines, header="case,group,split"), split_fractions=(1.0, 0.0, 0.0)
        )
        assigned = assign(cases_of("abcde", d="val"), config)
        assert assigned == {"a": "test", "b": "test", "c": "val", "d": "val", "e": "train"}

    @pytest.mark.parametrize(
        ("lines", "header", "words"),
        [
            (["a,1"], "case,group", "expected a group for every case, got none for b, c"),
            (["a,1", "b,1", "c,1", "d,2"], "case,group", "expected names of cases, got d, which the source"),
            (["a,1", "a,2"], "case,group", "line 3: expected a in one group, got 1 and 2"),
            (["a,"], "case,group", "line 2: expected a case and its group, got 'a' and ''"),
            (["a"], "case,group", "line 2: expected a case and its group, got 'a' and ''"),
            (["a,1,2"], "case,group", "line 2: expected 2 cells, got more"),
            (["a,1"], "case,patient", "columns case,group or case,group,split, got case,patient"),
            ([], "", "columns case,group or case,group,split, got$"),
            (["a,1,training"], "case,group,split", "line 2: expected a split of train, val, test or nothing, got 'tr"),
            (["a,1,val", "b,1,test"], "case,group,split", "line 3: expected group 1 in one split, got val and test"),
            (["a,1", "b,1", "c,2"], "case,group", "expected group 1 in one split, got val, and test for case b"),
        ],
    )
    def test_tables_that_do_not_fit(self, tmp_path, lines, header, words):
        config = config_of(groups=write_groups(tmp_path, *lines, header=header))
        with pytest.raises(InputError, match=words):
            assign(cases_of("abc", a="val", b="test"), config)

    def test_no_such_table(self, tmp_path):
        with pytest.raises(InputError, match=r"data.groups .*none.csv: cannot be read as CSV"):
            assign(cases_of("abc"), config_of(groups=str(tmp_path / "none.csv")))


class FoldsTest:
    def test_partition_the_cases(self):
        names = [f"case{i}" for i in range(17)]
        held_out = []
        for fold in range(5):
            assigned = assign(cases_of(names), config_of(folds=5, fold=fold))
            assert sizes_of(assigned)[2] == 0
            held_out.append([name for name, split in assigned.items() if split == "val"])
        assert sorted(map(len, held_out)) == [3, 3, 3, 4, 4]
        assert sorted(itertools.chain(*held_out)) == sorted(names)

    def test_stated_test_stays_test_and_all_else_is_folded(self):
        cases = cases_of("abcdefg", a="test", b="train", c="val")
        seen = set()
        for fold in range(3):
            assigned = assign(cases, config_of(folds=3, fold=fold))
            assert assigned["a"] == "test"
            assert sizes_of(assigned) == (4, 2, 1)
            seen |= {name for name, split in assigned.items() if split == "val"}
        assert seen == set("bcdefg")

    def test_a_group_stays_together_whatever_is_stated_of_its_cases(self, tmp_path):
        groups = write_groups(tmp_path, "a,x", "b,x", "c,y", "d,z")
        cases = cases_of("abcd", a="train", b="val", d="test")
        folds = [assign(cases, config_of(folds=2, fold=fold, groups=groups)) for fold in range(2)]
        assert all(assigned["a"] == assigned["b"] != assigned["c"] for assigned in folds)
        assert [assigned["d"] for assigned in folds] == ["test", "test"]
        assert {assigned["a"] for assigned in folds} == {"train", "val"}

    def test_more_folds_than_cases(self):
        with pytest.raises(InputError, match=r"data.folds: expected at most 2, one group or case each, got 3"):
            assign(cases_of("abc", c="test"), config_of(folds=3))


class DistributeTest:
    def test_by_hand(self):
        # Class 1 is in two groups only: it is dealt out first, one each; class 0 follows, large groups first.
        counts = np.array([[4, 0], [4, 0], [2, 1], [2, 1]])
        subsets = distribute(np.ones(4, int), counts, (0.5, 0.5))
        np.testing.assert_array_equal(subsets, [0, 1, 0, 1])

    def test_nothing_there(self):
        assert distribute(np.zeros(0, int), np.zeros((0, 2)), (0.8, 0.2)).tolist() == []
        assert distribute(np.ones(2, int), np.zeros((2, 0)), (0.5, 0.5)).tolist() == [0, 1]

    def test_is_nearer_to_the_shares_than_chance(self):
        # Three classes: common, in a fifth of the cases, and in 8 of 80.
        stratified, drawn = [], []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            counts = np.stack([rng.poisson(5, 80), rng.binomial(1, 0.2, 80) * 3, np.zeros(80, int)], axis=1)
            counts[rng.choice(80, 8, replace=False), 2] = rng.integers(1, 4, 8)
            fractions = np.array([0.6, 0.2, 0.2])
            for found, results in (
                (distribute(np.ones(80, int), counts, fractions), stratified),
                (rng.permutation(np.repeat([0, 1, 2], (48, 16, 16))), drawn),
            ):
                shares = [counts[found == s].sum(axis=0) / counts.sum(axis=0) for s in range(3)]
                results.append(np.abs(np.array(shares) - fractions[:, None]).max())
        assert max(stratified) < 0.15
        assert np.mean(stratified) < np.mean(drawn) / 3


class ClassCountsTest:
    def count(self, folder, values, table=None, **settings):
        write_volume(folder / "a_labels.npz", values, (1, 1, 1))
        if table is not None:
            (folder / "a_labels.json").write_text(json.dumps(table))
        return class_counts(cases_of("a", folder)[0], config_of(**settings)).tolist()

    def values(self):
        values = np.zeros(SHAPE, np.uint8)
        values[0, 0, 0], values[2, 2, 2:5], values[4, 6, 10] = 1, 2, 2
        return values

    def test_semantic_components(self, tmp_path):
        assert self.count(tmp_path, self.values(), labels="semantic", classes=("a", "b", "c")) == [1, 2, 0]
        assert self.count(tmp_path, np.zeros(SHAPE, np.uint8), labels="semantic", classes=("a", "b")) == [0, 0]

    def test_json_tells_at_once(self, tmp_path):
        files = cases_of("a", tmp_path)[0]
        (tmp_path / "a_labels.json").write_text('{"1": "b", "2": {"class": "b", "energy": 3}, "9": 1}')
        assert class_counts(files, config_of(classes=("a", "b"))).tolist() == [1, 2]  # There is no volume.

    def test_ids_of_the_only_class(self, tmp_path):
        assert self.count(tmp_path, self.values()) == [2]
        with pytest.raises(InputError, match=r"expected a_labels.json beside it, which tells the classes"):
            self.count(tmp_path, self.values(), classes=("a", "b"))

    @pytest.mark.parametrize("labels", ["semantic", "instances"])
    @pytest.mark.parametrize("chunk_size", [(1, 1, 1), (2, 7, 12), (64, 64, 64)])
    def test_slabs_of_a_chunk_give_what_the_whole_gives(self, tmp_path, monkeypatch, labels, chunk_size):
        values, read = np.zeros(SHAPE, np.uint16), []
        values[0:4, 1, 2] = 1  # through several slabs
        values[1, 5, 3:9], values[4, 5, 3], values[3, 0, 0] = 2, 2, 300 if labels == "instances" else 1
        write_volume(tmp_path / "a.nii", values, (1, 1, 1))
        whole = LazyArray.__getitem__

        def reading(array, key):
            found = whole(array, key)
            read.append(found.shape[0])
            return found

        monkeypatch.setattr(LazyArray, "__getitem__", reading)
        files = CaseFiles("a", (), tmp_path / "a.nii", None)
        classes = ("a", "b") if labels == "semantic" else ("a",)
        config = config_of(labels=labels, classes=classes, chunk_size=chunk_size)
        assert class_counts(files, config).tolist() == ([2, 2] if labels == "semantic" else [3])
        assert read == {1: [1] * 5, 2: [2, 2, 1], 64: [5]}[chunk_size[0]]

    def test_boxes(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("z0,y0,x0,z1,y1,x1,class\n0,0,0,1,1,1,b\n0,0,0,2,2,2,b\n")
        files = CaseFiles("a", (), path, None)
        assert class_counts(files, config_of(labels="boxes", classes=("a", "b"))).tolist() == [0, 2]


class SplitsTest:
    def test_names_are_those_of_the_schema(self):
        assert splits.SPLITS == schema.SPLITS
