import json

import pytest

from tests import mains
from tests.planning import records_folder

# No axis of the volumes is as long as another.
DATA = [
    "--config.data.synthetic.shape=(48, 64, 80)",
    "--config.data.synthetic.base_size=6.0",
    "--config.data.synthetic.count=(3, 3)",
    "--config.data.synthetic.num_train=6",
    "--config.data.synthetic.num_val=2",
    "--config.data.synthetic.num_test=0",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    converted = mains.run("convert_main", *DATA, f"--output={folder}/records")
    assert converted.code == 0, converted.err
    records_folder.write(folder / "empty", [records_folder.chunk("a", (8, 9, 10), [], [])])
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    records = f"--records={folder}/records"
    overridden = {
        "outgrown": ["--config.model.anchors.sizes=((34.0,),(16.0,),(30.0,))"],
        "misuse": ["--config.model.fpn.levels=(2,3)"],
        "other classes": [records, f"--output={folder}/none", "--config.data.classes=('cell',)"],
    }
    commands = {
        "default": [],
        "plan": [records, f"--output={folder}/plan"],
        "again": [records, f"--output={folder}/again"],
        "no output": [records],
        "no records": [f"--output={folder}/none"],
        "absent": [f"--records={folder}/absent", f"--output={folder}/none"],
        "no objects": [f"--records={folder}/empty", f"--output={folder}/none"],
        "full": [records, f"--output={folder}/full"],
        "no memory": [records, f"--output={folder}/none", "--memory_gb=0"],
    }
    found = {name: mains.run("plan_main", *given) for name, given in overridden.items()}
    return found | mains.run_each("plan_main", commands), folder


class PlanMainTest:
    def test_prints_what_each_level_sees_and_its_anchors(self, results):
        found = results[0]["default"]
        lines = found.out.splitlines()
        assert found.code == 0, found.err
        assert lines[0] == "shapes_small: receptive fields, voxels (z, y, x)"
        assert [line.split()[0] for line in lines[1:]] == ["level", "P2", "P3", "P4"]
        assert "(4, 4, 4)" in lines[2]
        assert lines[2].endswith("(9, 9, 9), (13, 13, 13)")

    def test_marks_an_anchor_that_outgrows_its_level(self, results):
        marked = [line for line in results[0]["outgrown"].out.splitlines()[2:] if line.endswith("!")]
        assert len(marked) == 1
        assert marked[0].startswith("P2")
        assert marked[0].endswith("(34, 34, 34) !")

    def test_writes_a_plan_and_pictures_and_says_what_changes(self, results):
        found, folder = results[0]["plan"], results[1]
        assert found.code == 0, found.err
        lines = found.out.splitlines()
        assert lines[0] == "shapes_small: 18 objects in 6 cases"
        assert any(line.startswith("input.patch_size ") and "(64, 64, 64) -> (48, 64, 80)" in line for line in lines)
        assert any(line.startswith("anchors, refined: IoU >= 0.5 for") and line.endswith("of val") for line in lines)
        assert not [line for line in lines if line.endswith("!")]
        names = {path.name for path in (folder / "plan").iterdir()}
        assert names == {"plan.yaml", "sizes.png", "aspects.png", "anchors.png", "cases.png"}
        assert all((folder / "plan" / name).stat().st_size > 1000 for name in names)

    def test_is_the_same_every_time(self, results):
        folder = results[1]
        assert (folder / "plan" / "plan.yaml").read_text() == (folder / "again" / "plan.yaml").read_text()

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("misuse", "expected 2 entries, one per level of the pyramid"),
            ("no output", "expected --output=FOLDER for the plan, came none"),
            ("no records", "expected --records=FOLDER to plan from, came none"),
            ("absent", "no records at"),
            ("no objects", "expected instances in the split train, came none"),
            ("full", "expected a new or empty output folder, got one with files in it"),
            ("other classes", "expected the config's classes ['cell']"),
            ("no memory", "memory_gb"),
        ],
    )
    def test_misuse_is_one_line_and_leaves_nothing(self, results, name, words):
        mains.assert_misuse(results[0][name], words)
        assert not (results[1] / "none").exists()


class TrainWithPlanTest:
    @pytest.fixture(scope="class")
    def trained(self, results, tmp_path_factory):
        """Two steps with a plan whose first setting the command line overrides; then on without it; and misuse."""
        folder = tmp_path_factory.mktemp("train")
        text = (results[1] / "plan" / "plan.yaml").read_text()
        (folder / "plan.yaml").write_text(text)
        (folder / "typo.yaml").write_text(text.replace("input.patch_size:", "input.patch_sise:"))
        (folder / "wrong.yaml").write_text(text.replace("value: [48, 64, 80]", "value: [48, 64]"))
        run = [
            f"--config.data.records={results[1]}/records",
            *DATA,
            "--config.input.rotate_planes=()",
            "--config.model.mask_head.roi_size=(3, 4, 5)",
            "--config.train.batch_size=1",
            "--config.train.warmup_steps=0",
            "--config.train.steps_per_loop=1",
            "--wandb=disabled",
        ]
        commands = {
            "plan": [*run, f"--workdir={folder}/run", f"--plan={folder}/plan.yaml", "--config.train.steps=1"],
            "without": [*run, f"--workdir={folder}/run", "--config.train.steps=1"],
        }
        misused = {
            name: [f"--workdir={folder}/none", f"--plan={folder}/{name}.yaml"] for name in ("typo", "wrong", "absent")
        }
        found = {name: mains.run("train_main", *given) for name, given in commands.items()}
        return found | mains.run_each("train_main", misused), folder

    def test_follows_the_plan_but_for_the_command_line(self, results, trained):
        found, folder = trained[0]["plan"], trained[1]
        assert found.code == 0, found.err
        line = "followed, but the command line decides model.mask_head.roi_size, input.rotate_planes"
        assert found.out.splitlines()[0] == f"plan {folder}/plan.yaml: {line}"
        config = json.loads((folder / "run" / "config.json").read_text())
        assert config["input"]["patch_size"] == [48, 64, 80]
        assert config["model"]["mask_head"]["roi_size"] == [3, 4, 5]
        assert len(config["model"]["anchors"]["sizes"][0][0]) == 3

    def test_a_run_goes_on_without_the_plan(self, trained):
        found = trained[0]["without"]
        assert found.code == 0, found.err
        assert "already trained for 1 steps" in found.out

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("typo", "expected settings of this version's config, came input.patch_sise"),
            ("wrong", "expected three integers >= 1"),
            ("absent", "absent.yaml: expected a file of plan_main.py: No such file or directory"),
        ],
    )
    def test_misuse_is_one_line(self, trained, name, words):
        found = trained[0][name]
        assert (found.code, found.err.count("\n")) == (2, 1)
        assert words in found.err
        assert not (trained[1] / "none").exists()
