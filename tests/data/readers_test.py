import pytest

from data.errors import InputError
from data.readers import case_stem, volume_suffix
from tests.data.formats.volumes import assert_input_error


class NamesTest:
    @pytest.mark.parametrize(
        ("name", "stem"),
        [
            ("a.nii.gz", "a"),
            ("a.b.nii", "a.b"),
            ("x/a.ome.tif", "a"),
            ("a.OME.TIFF", "a"),
            ("a.tiff", "a"),
            ("a.npz", "a"),
            ("a.v2", "a.v2"),
        ],
    )
    def test_case_stem(self, name, stem):
        assert case_stem(name) == stem

    def test_volume_suffix(self):
        assert volume_suffix("A.NII.GZ") == ".nii.gz"
        assert volume_suffix("a.ome.tif") == ".tif"
        assert volume_suffix("a.ome.zarr") == ".ome.zarr"
        with pytest.raises(InputError, match=r"expected a volume file \(.*\.npz\), got 'a.png'"):
            volume_suffix("a.png")


class ReadVolumeTest:
    def test_missing_file_folder_and_format(self, tmp_path):
        (tmp_path / "b.tif").mkdir()
        (tmp_path / "c.png").touch()
        assert_input_error(tmp_path / "a.tif", "expected a volume file, got nothing at that path")
        assert_input_error(tmp_path / "b.tif", "expected a volume file, got a folder")
        assert_input_error(tmp_path / "c.png", r"expected a volume file \(.nii.gz, .*'c.png'")
