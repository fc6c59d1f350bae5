import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from data.errors import InputError
from data.formats.dicom_seg import read_segments
from data.readers import read_volume
from tests.data.formats.volumes import SHAPE, assert_input_error, shared

# Voxels of 2 x 0.75 x 0.5 mm (z, y, x) with the first centre at x 1, y -2, z 30 mm.
AFFINE = np.array([[0, 0, 0.5, 1], [0, 0.75, 0, -2], [2, 0, 0, 30], [0, 0, 0, 1]])


def item(**tags):
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def write_seg(path, frames, labels, *, kind="BINARY", orientation=(1, 0, 0, 0, 1, 0), spacing=(0.75, 0.5)):
    """Writes a segmentation: frames are (segment number or None, position x, y, z, pixels)."""
    pixels = np.stack([frame[2] for frame in frames])
    dataset = item(SOPClassUID=uid.SegmentationStorage, SOPInstanceUID=uid.generate_uid(), Modality="SEG")
    if kind == "LABELMAP":
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SegmentationType, dataset.NumberOfFrames = kind, len(frames)
    dataset.Rows, dataset.Columns = pixels.shape[1:]
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.SegmentSequence = [item(SegmentNumber=number, SegmentLabel=label) for number, label in labels.items()]
    shared_groups = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(orientation))],
        PixelMeasuresSequence=[item(PixelSpacing=list(spacing), SliceThickness=7.0)],
    )
    dataset.SharedFunctionalGroupsSequence = [shared_groups]
    dataset.PerFrameFunctionalGroupsSequence = [frame_groups(number, at) for number, at, _ in frames]
    data = np.packbits(pixels.ravel(), bitorder="little") if bits == 1 else pixels.astype(np.uint8).ravel()
    dataset.PixelData = data.tobytes() + bytes(len(data) % 2)
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def frame_groups(number, position):
    groups = item(PlanePositionSequence=[item(ImagePositionPatient=np.round(position, 6).tolist())])
    if number is not None:
        groups.SegmentIdentificationSequence = [item(ReferencedSegmentNumber=number)]
    return groups


def frames_of(number, mask, *, first=0):
    """The frames of a [Z, 7, 11] mask whose first slice is slice `first` of the image; empty slices are left out."""
    return [(number, (1, -2, 30 + 2 * (first + z)), mask[z]) for z in range(len(mask)) if mask[z].any()]


def box_mask(z, y, x):
    mask = np.zeros(SHAPE, bool)
    mask[z, y, x] = True
    return mask


LARGE, SMALL = box_mask(slice(1, 4), slice(2, 6), slice(3, 9)), box_mask(slice(3, 5), slice(4, 7), slice(8, 10))
LABELS = {1: "Liver", 4: "Spine"}


class ReadSegmentsTest:
    def test_segments_become_ids_on_the_grid_of_the_image(self, tmp_path):
        apart = box_mask(0, slice(0, 2), 0)
        path = write_seg(tmp_path / "a.dcm", [*frames_of(4, apart), *frames_of(1, LARGE)], LABELS)
        found = read_segments(path, SHAPE, AFFINE)
        assert found.ids.dtype == np.int32
        np.testing.assert_array_equal(found.ids, 1 * LARGE + 4 * apart)
        assert (found.labels, found.hidden) == (LABELS, {})

    def test_the_smaller_segment_keeps_shared_voxels_and_what_it_hides_is_counted(self, tmp_path):
        both = int(np.sum(LARGE & SMALL))
        assert both == 2
        for frames in (
            [*frames_of(1, LARGE), *frames_of(4, SMALL)],
            [*frames_of(4, SMALL), *frames_of(1, LARGE)],
        ):
            found = read_segments(write_seg(tmp_path / "a.dcm", frames, LABELS), SHAPE, AFFINE)
            np.testing.assert_array_equal(found.ids, np.where(SMALL, 4, 1 * LARGE))
            assert found.hidden == {(1, 4): both}

    def test_equal_segments_leave_the_voxels_to_the_lower_number(self, tmp_path):
        frames = [*frames_of(1, SMALL), *frames_of(4, SMALL)]
        found = read_segments(write_seg(tmp_path / "a.dcm", frames, LABELS), SHAPE, AFFINE)
        np.testing.assert_array_equal(found.ids, 1 * SMALL)
        assert found.hidden == {(4, 1): 12}
        assert found.labels == LABELS

    def test_label_map(self, tmp_path):
        ids = (1 * LARGE + 4 * (SMALL & ~LARGE)).astype(np.uint8)
        path = write_seg(tmp_path / "a.dcm", frames_of(None, ids), {0: "Background", **LABELS}, kind="LABELMAP")
        found = read_segments(path, SHAPE, AFFINE)
        np.testing.assert_array_equal(found.ids, ids)
        assert (found.labels, found.hidden) == (LABELS, {})

    def test_frames_of_a_flipped_part_of_the_image(self, tmp_path):
        part = LARGE[:, 1:7, 2:10]
        corner = AFFINE[:3, :3] @ [0, 6, 9] + AFFINE[:3, 3]
        frames = [(1, corner + [0, 0, 2 * z], part[z, ::-1, ::-1]) for z in (3, 1, 2)]
        path = write_seg(tmp_path / "a.dcm", frames, LABELS, orientation=(-1, 0, 0, 0, -1, 0))
        np.testing.assert_array_equal(read_segments(path, SHAPE, AFFINE).ids, 1 * LARGE)

    def test_oblique_image(self, tmp_path):
        c, s = np.cos(0.3), np.sin(0.3)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        affine = AFFINE.copy()
        affine[:3, :3] = turn @ AFFINE[:3, :3]
        orientation = np.round([*turn[:, 0], *turn[:, 1]], 8)
        path = write_seg(tmp_path / "a.dcm", frames_of(1, LARGE), LABELS, orientation=orientation)
        np.testing.assert_array_equal(read_segments(path, SHAPE, affine).ids, 1 * LARGE)
        with pytest.raises(InputError, match="expected frames on the grid of the image, got one at voxel"):
            read_segments(path, SHAPE, AFFINE)

    def test_no_voxel_at_all(self, tmp_path):
        path = write_seg(tmp_path / "a.dcm", [(1, (1, -2, 30), np.zeros((7, 11), bool))], LABELS)
        found = read_segments(path, SHAPE, AFFINE)
        assert not found.ids.any()
        assert (found.labels, found.hidden) == (LABELS, {})

    def test_another_spacing(self, tmp_path):
        path = write_seg(tmp_path / "a.dcm", frames_of(1, LARGE), LABELS, spacing=(0.75, 0.52))
        with pytest.raises(InputError, match=r"on the grid of the image, got one at voxel \[1.0, 0.0, 0.0\]"):
            read_segments(path, SHAPE, AFFINE)

    def test_segment_outside_the_image(self, tmp_path):
        path = write_seg(tmp_path / "a.dcm", frames_of(1, LARGE, first=2), LABELS)
        with pytest.raises(InputError, match=r"inside the image of \(5, 7, 11\) voxels .* got one at \[5, 2, 3\]"):
            read_segments(path, SHAPE, AFFINE)

    def test_segment_without_description(self, tmp_path):
        path = write_seg(tmp_path / "a.dcm", frames_of(3, LARGE), LABELS)
        with pytest.raises(InputError, match=r"expected a description of every segment, got none for \[3\]"):
            read_segments(path, SHAPE, AFFINE)

    def test_what_is_no_segmentation(self, tmp_path):
        path = write_seg(tmp_path / "a.dcm", frames_of(1, LARGE), LABELS)
        dataset = pydicom.dcmread(path)
        dataset.SegmentationType = "FRACTIONAL"
        dataset.save_as(path)
        with pytest.raises(InputError, match="expected a BINARY or LABELMAP segmentation, got FRACTIONAL"):
            read_segments(path, SHAPE, AFFINE)
        dataset.SOPClassUID, dataset.Modality = uid.CTImageStorage, "CT"
        dataset.save_as(path)
        with pytest.raises(InputError, match="expected a DICOM segmentation, got CT"):
            read_segments(path, SHAPE, AFFINE)
        path.write_bytes(b"hello" * 100)
        with pytest.raises(InputError, match=r"a.dcm: cannot be read as a DICOM segmentation: "):
            read_segments(path, SHAPE, AFFINE)
        with pytest.raises(InputError, match="expected a DICOM segmentation, got no such file"):
            read_segments(tmp_path / "b.dcm", SHAPE, AFFINE)

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
    def test_truncated(self, tmp_path, share):
        path = write_seg(tmp_path / "a.dcm", frames_of(1, LARGE), LABELS)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match=r"a.dcm: "):
            read_segments(path, SHAPE, AFFINE)

    def test_is_no_image(self, tmp_path):
        path = write_seg(tmp_path / "a.dcm", frames_of(1, LARGE), LABELS)
        assert_input_error(path, "got a DICOM segmentation, which is read as labels of its image")

    def test_shared_segmentations(self):
        folder = shared("conversion/ct_dicom_dcmqi")
        image = read_volume(folder / "ct-3slice", lazy=True)
        found = read_segments(folder / "liver.dcm", image.array.shape, image.affine)
        assert (found.labels, found.hidden) == ({1: "Liver"}, {})
        nrrd = read_volume(folder / "liver_spine_seg.nrrd").array
        np.testing.assert_array_equal(found.ids, nrrd == 1)

        found = read_segments(folder / "partial_overlaps.dcm", image.array.shape, image.affine)
        assert found.labels == {1: "GREEN", 2: "ORANGE", 3: "PURPLE", 4: "LIGHT_BLUE", 5: "DARK_BLUE"}
        assert found.hidden == {(2, 3): 50, (2, 1): 2989, (3, 1): 95}
        sizes = dict(zip(*np.unique(found.ids, return_counts=True), strict=True))
        assert sum(sizes[i] for i in range(1, 6)) + sum(found.hidden.values()) == 9602 + 11888 + 10743 + 6693 + 4713
