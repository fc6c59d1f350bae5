"""Keeps the arrows between the folders pointing down."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# What each folder may import of the project; a main may import everything but another main.
MAY_IMPORT = {
    "ops": set(),
    "data": {"ops"},
    "model": {"ops"},
    "training": {"model", "data", "ops"},
    "evaluation": {"model", "data", "ops"},
    "tracking": {"training", "evaluation", "model", "data", "ops"},
    "debugging": {"training", "evaluation", "serving", "model", "data", "ops"},
    "serving": {"model", "data", "ops"},
    "planning": {"data", "ops"},
    "tuning": {"data"},  # for its error alone
    "results": {"evaluation", "serving", "training", "model", "data", "ops", "configs"},
    "benchmarks": {"ops", "data", "model", "training", "tracking", "configs"},
    "configs": {"data"},  # command_line alone, for the error that it prints
}
MAINS = sorted(path.stem for path in ROOT.glob("*_main.py"))
# Libraries that only these folders (or files) may import.
KEPT_TO = {
    "tensorflow_addons": {"training/optimizers.py", "training/schedules.py", "model/normalization.py"},
    "tensorflow_io": {"data"},
    "h5py": {"data", "training/inflate.py"},
    "wandb": {"tracking"},
    "optuna": {"tuning"},
    "pydicom": {"data"},
    "tensorstore": {"data"},
    "SimpleITK": {"data", "serving/client.py"},
    "tifffile": {"data", "serving/client.py"},
}
OPS_IMPORT = {"tensorflow", "numpy", "ops", "functools", "math", "re", "typing"}


def imports(path):
    """Top-level names of everything that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module.split(".")[0])
    return names


def files(folder):
    return sorted((ROOT / folder).glob("**/*.py"))


class LayeringTest:
    @pytest.mark.parametrize("folder", MAY_IMPORT)
    def test_arrows_point_down(self, folder):
        assert files(folder), f"{folder} holds no module"
        for path in files(folder):
            used = imports(path) & (set(MAY_IMPORT) | set(MAINS) | {"tests"})
            assert used <= MAY_IMPORT[folder] | {folder}, path

    def test_configs_need_data_for_its_error_alone(self):
        assert [path.name for path in files("configs") if "data" in imports(path)] == ["command_line.py"]

    def test_ops_import_tensorflow_and_numpy_only(self):
        for path in files("ops"):
            assert imports(path) <= OPS_IMPORT, path

    def test_nobody_imports_a_main(self):
        assert len(MAINS) == 8
        for path in [*ROOT.glob("*_main.py"), *(p for folder in MAY_IMPORT for p in files(folder))]:
            assert not imports(path) & set(MAINS), path

    def test_flags_exist_in_mains_only(self):
        with_flags = {str(p.relative_to(ROOT)) for folder in MAY_IMPORT for p in files(folder) if "absl" in imports(p)}
        assert with_flags == {"configs/command_line.py"}

    @pytest.mark.parametrize("library", KEPT_TO)
    def test_library_stays_in_its_place(self, library):
        for path in [p for folder in MAY_IMPORT for p in files(folder)]:
            if library in imports(path):
                where = path.relative_to(ROOT)
                assert {str(where), where.parts[0]} & KEPT_TO[library], path

    def test_only_the_pipeline_and_the_records_chain_datasets(self):
        users = {
            str(path.relative_to(ROOT))
            for folder in set(MAY_IMPORT) - {"benchmarks"}
            for path in files(folder)
            if "tf.data.Dataset" in path.read_text().replace("-> tf.data.Dataset", "")
        }
        assert users <= {"data/pipeline.py"}

    def test_client_needs_no_project_code(self):
        assert not imports(ROOT / "serving/client.py") & set(MAY_IMPORT)
