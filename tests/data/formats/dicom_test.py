import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from data.readers import case_stem, read_volume, volume_suffix
from tests.data.formats.volumes import SHAPE, assert_input_error, ramp, read_both, shared

ORIENTATION = [1, 0, 0, 0, 1, 0]


def write_slice(path, pixels, position, **tags):
    """Writes one uncompressed slice; SliceThickness and the order of the names tell nothing."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = tags.pop("syntax", uid.ExplicitVRLittleEndian)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid.generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = "1.2", "1.2.3", "CT"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelSpacing, dataset.SliceThickness = [0.75, 0.5], 9.0
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = ORIENTATION, np.round(position, 6).tolist()
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def write_series(folder, array, *, step=(0, 0, 2.0), start=(1.0, -2.0, 30.0), **tags):
    """Writes slice i at start + i * step mm, the last one first in the order of the names."""
    folder.mkdir(exist_ok=True)
    for i, pixels in enumerate(array):
        write_slice(folder / f"{90 - i}.dcm", pixels, np.array(start) + i * np.array(step), **tags)
    return folder


def change(path, **tags):
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


class SeriesTest:
    @pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
    def test_order_and_spacing_come_from_the_positions(self, tmp_path, dtype):
        folder = write_series(tmp_path / "scan", ramp(dtype))
        volume = read_both(folder)
        assert volume.array.dtype == dtype
        np.testing.assert_array_equal(volume.array, ramp(dtype))
        np.testing.assert_array_equal(volume.spacing, [2, 0.75, 0.5])
        np.testing.assert_array_equal(volume.affine, [[0, 0, 0.5, 1], [0, 0.75, 0, -2], [2, 0, 0, 30], [0, 0, 0, 1]])

    def test_names(self, tmp_path):
        folder = write_series(tmp_path / "scan.1", ramp("int16"))
        assert (volume_suffix(folder), case_stem(folder)) == (".dcm", "scan.1")

    def test_downward_positions_are_turned_round(self, tmp_path):
        folder = write_series(tmp_path / "scan", ramp("int16"), step=(0, 0, -2.0))
        volume = read_both(folder)
        np.testing.assert_array_equal(volume.array, ramp("int16")[::-1])
        np.testing.assert_array_equal(volume.affine[:3, 3], [1, -2, 22])

    def test_oblique_series_as_simpleitk_reads_it(self, tmp_path):
        c, s = np.cos(0.3), np.sin(0.3)
        axes = np.array([[c, s, 0], [-s * c, c * c, s], [s * s, -s * c, c]])  # x, y, normal
        orientation = np.round(axes[:2], 9).ravel().tolist()
        folder = write_series(tmp_path / "a", ramp("int16"), step=2 * axes[2], ImageOrientationPatient=orientation)
        volume = read_both(folder)
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        np.testing.assert_array_equal(volume.array, SimpleITK.GetArrayFromImage(image))
        np.testing.assert_allclose(volume.spacing, image.GetSpacing()[::-1], rtol=1e-6)
        world = image.TransformIndexToPhysicalPoint((10, 3, 2))  # x, y, z
        np.testing.assert_allclose(volume.affine @ [2, 3, 10, 1], [*world, 1], atol=1e-5)

    @pytest.mark.parametrize(
        ("slope", "intercept", "bits", "dtype"),
        [
            (1, -1024, 12, "int16"),
            (1, -1024, 16, "int32"),  # Every value that the header allows, as GDCM has it.
            (2, 0, 12, "uint16"),
            (1, 0, 8, "uint8"),
            (0.5, -3, 12, "float32"),
        ],
    )
    def test_rescaled_values_keep_their_sign(self, tmp_path, slope, intercept, bits, dtype):
        scale = {"RescaleSlope": slope, "RescaleIntercept": intercept, "BitsStored": bits, "HighBit": bits - 1}
        array = (ramp("uint16") % 256).astype(np.uint16)
        volume = read_both(write_series(tmp_path / "a", array, **scale))
        assert volume.array.dtype == dtype
        np.testing.assert_array_equal(volume.array, array * float(slope) + intercept)

    def test_each_slice_has_its_own_scale(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("uint16"), RescaleIntercept=0, RescaleSlope=1)
        change(folder / "90.dcm", RescaleSlope=3, RescaleIntercept=-7)
        volume = read_both(folder)
        np.testing.assert_array_equal(volume.array[0], ramp("int64")[0] * 3 - 7)
        np.testing.assert_array_equal(volume.array[1:], ramp("int64")[1:])

    def test_colours_are_channels(self, tmp_path):
        array = ramp("uint8", (*SHAPE, 3))
        np.testing.assert_array_equal(read_both(write_series(tmp_path / "a", array)).array, array)

    @pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.RLELossless])
    def test_transfer_syntaxes(self, tmp_path, syntax):
        folder = write_series(tmp_path / "a", ramp("int16"))
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            if syntax == uid.RLELossless:
                dataset.compress(syntax)
            else:
                dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
        np.testing.assert_array_equal(read_both(folder).array, ramp("int16"))

    def test_notes_and_names_without_suffix(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"))
        for i, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / (f"1.2.840.{i}" if i % 2 else f"slice{i}"))
        (folder / "README.txt").write_text("hello")
        (folder / ".hidden").write_text("hello")
        (folder / "DICOMDIR").write_text("hello")
        np.testing.assert_array_equal(read_both(folder).array, ramp("int16"))

    def test_gap(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"))
        (folder / "88.dcm").unlink()
        words = r"slices 2 mm apart, got a gap of 4 mm between 89.dcm and 87.dcm \(at 32 and 36 mm\): 1 missing"
        assert_input_error(folder, words)

    def test_two_slices_at_one_position(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"))
        change(folder / "88.dcm", ImagePositionPatient=[1, -2, 32])
        assert_input_error(folder, "one slice at every position, got 88.dcm and 89.dcm both at 32 mm")

    def test_uneven_distances(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"))
        change(folder / "88.dcm", ImagePositionPatient=[1, -2, 34.2])
        assert_input_error(folder, r"slices 2 mm apart, got 2.2 mm between 89.dcm and 88.dcm \(at 32 and 34.2 mm\)")

    def test_rounded_positions_are_even(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"))
        change(folder / "88.dcm", ImagePositionPatient=[1, -2, 34.01])
        assert read_both(folder).spacing[0] == 2

    def test_tilted_gantry(self, tmp_path):
        step = (0, 2 * np.tan(np.deg2rad(16.5)), 2.0)
        folder = write_series(tmp_path / "a", ramp("int16"), step=step)
        assert_input_error(
            folder, r"got a shear of 16.5 degrees \(a tilted gantry\); resample it to an orthogonal grid"
        )

    def test_several_series(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"))
        change(folder / "88.dcm", SeriesInstanceUID="1.2.4", Modality="MR")
        words = r"expected one DICOM series, got 2: 1.2.3 \(CT\): 4 file\(s\), 1.2.4 \(MR\): 1 file\(s\)"
        assert_input_error(folder, words)

    def test_one_slice_tells_no_distance(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16", (1, 7, 11)))
        assert_input_error(folder, "expected two slices or more, whose positions tell their distance, got 1")

    def test_empty_folder(self, tmp_path):
        (tmp_path / "note.txt").touch()
        assert_input_error(tmp_path, "expected a folder with the slices of one DICOM series, got no DICOM files")

    def test_single_file(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"))
        words = r"expected a folder with the slices of one DICOM series, got one file of 1 frame\(s\)"
        assert_input_error(folder / "88.dcm", words)

    @pytest.mark.parametrize("tag", ["PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"])
    def test_slice_without_a_place(self, tmp_path, tag):
        folder = write_series(tmp_path / "a", ramp("int16"), **{tag: None})
        with pytest.raises(ValueError, match=f"86.dcm: expected a slice of a volume with {tag}, got none"):
            read_volume(folder)

    @pytest.mark.parametrize(
        ("tag", "value"),
        [("PixelSpacing", [0.75, 0.6]), ("ImageOrientationPatient", [0, 1, 0, 1, 0, 0]), ("Columns", 10)],
    )
    def test_slice_unlike_the_others(self, tmp_path, tag, value):
        folder = write_series(tmp_path / "a", ramp("int16"))
        change(folder / "88.dcm", **{tag: value})
        with pytest.raises(ValueError, match=rf"88.dcm: expected {tag} .* as in 86.dcm, got "):
            read_volume(folder)

    def test_several_frames_in_a_slice(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"), NumberOfFrames=4)
        with pytest.raises(ValueError, match="expected one frame with a linear scale"):
            read_volume(folder)

    @pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
    def test_truncated_slice(self, tmp_path, capfd, share):
        folder = write_series(tmp_path / "a", ramp("int16", (5, 17, 23)))
        data = (folder / "88.dcm").read_bytes()
        (folder / "88.dcm").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ValueError, match=r"88.dcm: (expected a DICOM file|cannot be read as a DICOM slice)"):
            read_volume(folder)
        assert capfd.readouterr().err == ""

    def test_not_dicom(self, tmp_path):
        folder = write_series(tmp_path / "a", ramp("int16"))
        (folder / "88.dcm").write_bytes(b"hello " * 100)
        with pytest.raises(ValueError, match=r"88.dcm: expected a DICOM file, got something else or a part of one"):
            read_volume(folder)

    def test_shared_series(self):
        volume = read_both(shared("conversion/ct_dicom_dcmqi/ct-3slice"))
        np.testing.assert_allclose(volume.spacing, [1.0, 0.810547, 0.810547], rtol=1e-9)  # SliceThickness: 1.25
        assert volume.array.shape == (3, 512, 512)
        assert volume.array.dtype == np.int32
        assert (volume.array.min(), volume.array.max()) == (-3024, 1381)
        expected = [[0, 0, 0.810547, -235.199997], [0, 0.810547, 0, -226.800003], [1, 0, 0, -128.690002], [0, 0, 0, 1]]
        np.testing.assert_allclose(volume.affine, expected, atol=1e-6)
