import os

import pytest

from data.atomic import check_folder, replacing, replacing_folder
from data.errors import InputError


class ReplacingTest:
    def test_file_appears_only_when_the_block_ends(self, tmp_path):
        path = tmp_path / "deep" / "scan.nii.gz"
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert not path.exists()
        assert path.read_text() == "new"
        assert [p.name for p in path.parent.iterdir()] == ["scan.nii.gz"]

    def test_temporary_is_hidden_beside_the_target_and_keeps_its_suffix(self, tmp_path):
        with replacing(tmp_path / "scan.nii.gz") as temporary:
            temporary.touch()
            assert temporary.parent == tmp_path
            assert temporary.name.endswith(".nii.gz")
            assert temporary.name.startswith(".")

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_error_keeps_the_old_file_and_leaves_nothing_else(self, tmp_path, error):
        path = tmp_path / "scan.npz"
        path.write_text("old")
        with pytest.raises(error):
            self.write_and_raise(path, error)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def write_and_raise(self, path, error):
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    def test_error_before_anything_is_written(self, tmp_path):
        with pytest.raises(RuntimeError), replacing(tmp_path / "scan.npz"):
            raise RuntimeError
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("exists", [False, True])
    def test_folder(self, tmp_path, exists):
        path = tmp_path / "records"
        if exists:
            path.mkdir()
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "a").write_text("1")
        assert (path / "a").read_text() == "1"
        assert list(tmp_path.iterdir()) == [path]

    def test_error_deletes_a_half_written_folder(self, tmp_path):
        with pytest.raises(RuntimeError):
            self.fill_and_raise(tmp_path / "records")
        assert list(tmp_path.iterdir()) == []

    def fill_and_raise(self, path):
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "a").write_text("1")
            raise RuntimeError

    def test_full_folder_is_refused_before_any_work(self, tmp_path):
        (tmp_path / "a").write_text("1")
        words = "expected a new or empty output folder"
        with pytest.raises(InputError, match=words), replacing(tmp_path):
            pytest.fail("the block must not run")
        assert (tmp_path / "a").read_text() == "1"

    @pytest.mark.parametrize("path", ["a/out", "a/deep/out"])
    def test_path_below_a_file_is_refused_before_any_work(self, tmp_path, path):
        (tmp_path / "a").write_text("1")
        words = rf"out: expected {tmp_path / 'a'} to be a folder, got a file"
        with pytest.raises(InputError, match=words), replacing(tmp_path / path):
            pytest.fail("the block must not run")
        assert (tmp_path / "a").read_text() == "1"


class ReplacingFolderTest:
    @pytest.mark.parametrize("exists", [False, True])
    def test_folder_is_made_and_renamed(self, tmp_path, exists):
        path = tmp_path / "records"
        if exists:
            path.mkdir()
        with replacing_folder(path) as folder:
            assert folder.is_dir()
            (folder / "a").write_text("1")
        assert (path / "a").read_text() == "1"
        assert list(tmp_path.iterdir()) == [path]

    def test_file_is_refused_before_any_work(self, tmp_path):
        (tmp_path / "a").write_text("1")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        for name in ("a", "link"):
            words = f"{name}: expected a new or empty output folder, got a file"
            with pytest.raises(InputError, match=words), replacing_folder(tmp_path / name):
                pytest.fail("the block must not run")
        assert (tmp_path / "a").read_text() == "1"


class InputErrorTest:
    def test_message_is_one_line(self):
        assert str(InputError("first\n\n   second\r\n")) == "first second"
        assert isinstance(InputError("a"), ValueError)


class CheckFolderTest:
    def test_new_and_existing_folders_pass_and_nothing_is_made(self, tmp_path):
        check_folder(tmp_path)
        check_folder(str(tmp_path / "a" / "b"))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("below", ["", "a/b"])
    def test_file_or_below_one(self, tmp_path, below):
        (tmp_path / "scan.tif").write_text("")
        with pytest.raises(InputError, match=rf"^--output=.*: expected a folder, came the file {tmp_path}/scan\.tif$"):
            check_folder(tmp_path / "scan.tif" / below)

    def test_without_permission(self, tmp_path, monkeypatch):
        # Nothing is forbidden to root, who runs the tests in a container.
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(InputError, match=f"a folder that can be written, came {tmp_path} without permission"):
            check_folder(tmp_path / "a")
