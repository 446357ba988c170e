"""Episodes of LeRobot, NWM and RECON are what their files say, and actions are written from any columns."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_modules.action_video import ActionVideoDataset, ActionVideoSource
from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.reading.actions import Pose, action_text
from data_modules.recipes.nwm import nwm
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Frame, Text
from tests.data_modules.video_files import decode_all, moving_picture, write_video


def load(path: Path | str, format: DocumentFormat, **options: Any) -> ActionVideoDataset:
    options = {"context": 1, "horizon": 3, "targets": 3} | options
    dataset = ActionVideoSource(str(path), **options).dataset("train", "robot", format)
    assert dataset is not None
    return pickle.loads(pickle.dumps(dataset))


def written(dataset: ActionVideoDataset, format: DocumentFormat) -> Iterator[tuple[int, int, int, str, Document]]:
    """Row of the episode, number of the last context frame and of the target, the action, and its document."""
    for i in range(len(dataset)):
        document = dataset.document(Draw(i, 0, 0))
        entry = dataset.documents[int(dataset.order[i])]
        for branch, ahead in enumerate(entry["ahead"], start=1):
            opening = next(s for s in document.segments if s.branch == branch and isinstance(s, Text))
            text = format.tokenizer.decode(opening.ids).removeprefix("<eoi>").removesuffix("<boi>")
            yield entry["row"], entry["anchor"], entry["anchor"] + ahead * dataset.frame_step, text, document


def shown(document: Document) -> list[np.ndarray]:
    return [s.image.permute(1, 2, 0).numpy() for s in document.segments if isinstance(s, Frame)]


def poses(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A walk on a circle: positions (count, 2) in metres, yaw in radians beyond pi."""
    yaw = 2.5 + 0.2 * np.arange(count)
    return np.cumsum(np.stack([np.cos(yaw), np.sin(yaw)], 1), 0), yaw


def expected(position: np.ndarray, yaw: np.ndarray, start: int, stop: int, horizon: int) -> str:
    at = [Pose(*position[i].tolist(), np.degrees(yaw[i])) for i in (start, stop)]
    return action_text(*at, (stop - start) / horizon)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_nwm_folders_look_ahead_and_back(protocol: int, tmp_path: Path, document_format: DocumentFormat) -> None:
    folder, count = tmp_path / "recon" / "walk_1", 14
    folder.mkdir(parents=True)
    position, yaw = poses(count)
    pictures = moving_picture(count)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.jpg", quality=95)
    with open(folder / "traj_data.pkl", "wb") as file:
        pickle.dump({"position": position, "yaw": yaw[:, None]}, file, protocol=protocol)
    nwm(tmp_path / "recon")
    dataset = load(tmp_path / "recon", document_format, horizon=4, back=4, targets=8)
    found = set()
    for _, start, stop, action, document in written(dataset, document_format):
        assert action == expected(position, yaw, start, stop, 4)
        truth = np.asarray(Image.open(folder / f"{stop}.jpg").convert("RGB"))
        assert any(np.array_equal(truth, target) for target in shown(document)[1:])
        found.add((start, stop))
    steps = [*range(-4, 0), *range(1, 5)]
    assert found == {(a, a + h) for a in range(count - 1) for h in steps if 0 <= a + h < count}


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trap"),))


def test_pickles_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content, reason in [
        ({"position": np.zeros((2, 2)), "yaw": Trap()}, "it asks for .*, which may do anything"),
        ({"position": np.zeros((2, 2))}, "position and yaw are expected in it, but there is position"),
        (
            {"position": np.zeros((2, 2)), "yaw": np.zeros(3)},
            r"position \(frames, 2\) and yaw \(frames,\) are expected",
        ),
    ]:
        (tmp_path / "traj_data.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(BrokenFile, match=reason):
            nwm(tmp_path)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("stored", ["recon", "arrays"])
def test_hdf5_episodes(stored: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    h5py = pytest.importorskip("h5py")
    count = 10
    position, yaw = poses(count)
    pictures = moving_picture(count)
    with h5py.File(tmp_path / "jackal_2019.hdf5", "w") as file:
        if stored == "recon":
            files = [BytesIO() for _ in pictures]
            for picture, buffer in zip(pictures, files, strict=True):
                Image.fromarray(picture).save(buffer, "PNG")
            kind = h5py.vlen_dtype(np.uint8)
            images = file.create_dataset("images/rgb_left", (count,), dtype=kind)
            for i, buffer in enumerate(files):
                images[i] = np.frombuffer(buffer.getvalue(), np.uint8)
            file["jackal/position"] = np.concatenate([position, np.zeros((count, 1))], 1)
            file["jackal/yaw"] = yaw
        else:
            file["observations/images/top"] = np.stack(pictures)
            file["pose"] = np.concatenate([position, yaw[:, None]], 1)
    options: dict[str, Any] = {}
    if stored == "arrays":
        with pytest.raises(
            BrokenFile, match=r"there is no 'images/rgb_left' in it; say with `camera` which of obs.* pose"
        ):
            load(tmp_path, document_format)
        options = {"camera": "observations/images/top", "columns": {"x": "pose[0]", "y": "pose[1]", "yaw": "pose[2]"}}
    dataset = load(tmp_path, document_format, **options)
    for _, start, stop, action, document in written(dataset, document_format):
        assert action == expected(position, yaw, start, stop, 3)
        assert np.array_equal(shown(document)[0], pictures[start])
        assert any(np.array_equal(pictures[stop], target) for target in shown(document)[1:])


def test_steps_in_seconds(tmp_path: Path, document_format: DocumentFormat) -> None:
    """Frames that are shown at 0, 0.5, 1 … seconds, whatever the file's rate; texts of all steps between them."""
    times = [0.0, 0.1, 0.2, 0.9, 1.0, 1.9, 2.3, 2.5, 3.1]
    path = write_video(tmp_path / "a.mkv", moving_picture(9), times=times, bf="0")
    pd.DataFrame({"keys": list("ABCDEFGHI")}).to_csv(tmp_path / "a.csv", index=False)
    dataset = load(
        tmp_path, document_format, fps=2, horizon_seconds=1, text="{keys}; {seconds:.1f} {steps} {rel_t:.2f}"
    )
    full = decode_all(path)
    on_screen = [0, 2, 4, 4, 5, 7, 7]
    found = {
        (start, stop): (text, shown(document)) for _, start, stop, text, document in written(dataset, document_format)
    }
    assert sorted(found) == [(a, a + h) for a in range(6) for h in (1, 2) if a + h < 7]
    for (start, stop), (text, pictures) in found.items():
        a, b = on_screen[start], on_screen[stop]
        keys = ", then ".join("ABCDEFGHI"[a:b])
        assert text == f"{keys}; {times[b] - times[a]:.1f} {stop - start} {(stop - start) / 2:.2f}"
        assert np.array_equal(pictures[0], full[a])
        assert any(np.array_equal(full[b], target) for target in pictures[1:])
    keys_shown = {int(key) & 0xFFFFFFFF for key in dataset.picture_keys()}
    assert keys_shown == set(on_screen)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"text": "action: go"}, r"text: 'action: go' names no column; write fields"),
        ({"text": "{gripper:+.2q}"}, r"text: '\{gripper:\+.2q\}' is no format of a number"),
        ({"text": "{gripper.sum}"}, r"text: '\{gripper.sum\}' needs the format of a number"),
        ({"text": "{"}, "text: '{' is no template"),
        ({"text": "{pts:.1f}"}, "a column cannot be called 'pts' here"),
        (
            {"back": 2, "text": "{gripper:+.2f}"},
            r"back: 2 steps back, but \{gripper\} says what was done in steps ahead",
        ),
        ({"back": 2, "words": 0.5}, "back: 2 steps back, but words says"),
        ({"back": 2, "actions": "told"}, "back: 2 steps back, but actions: told says"),
        ({"horizon_seconds": 2.0}, "horizon_seconds: 2.0 needs `fps`"),
        ({"horizon_seconds": 0.1, "fps": 2}, "horizon_seconds: 0.1 is less than a step at 2 frames per second"),
        ({"fps": 2, "frame_step": 2}, "fps: 2 and frame_step: 2 both say"),
        ({"fps": 0}, "fps: 0 frames per second is not a rate"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        ActionVideoSource("x", **options)
