"""Episodes of LeRobot are what their files say, in every version, with pictures as videos or in the tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.dataset import BrokenFile, DocumentFormat
from lit_mm.mistake import Mistake
from tests.data_modules.test_action_layouts import load, shown, written
from tests.data_modules.video_files import decode_all
from tests.helpers.lerobot import (
    CAMERA,
    LENGTHS,
    lerobot_2,
    lerobot_2_of_pictures,
    lerobot_3,
    lerobot_3_of_pictures,
    pictures_of,
    with_pictures,
)


@pytest.mark.parametrize("make", [lerobot_2, lerobot_3, lerobot_2_of_pictures, lerobot_3_of_pictures])
def test_lerobot_data_sets(make: Callable[[Path], Path], tmp_path: Path, document_format: DocumentFormat) -> None:
    root = make(tmp_path / "pusht")
    videos = [decode_all(file) for file in sorted(root.rglob("*.mp4"))]
    if not videos:
        full = [pictures_of(number) for number in range(len(LENGTHS))]
    else:
        full = videos if make is lerobot_2 else [videos[0][: LENGTHS[0]], videos[0][LENGTHS[0] :], videos[1]]
    text = "action: grip={action[2]:+.2f}, pull={action[1].sum:+.3f}, x={observation.state[0].change:+.1f}, {task}"
    dataset = load(root, document_format, text=text)
    seen = set()
    for row, start, stop, action, document in written(dataset, document_format):
        pull = sum(-i / 8 for i in range(start, stop))
        tasks = ", then ".join([f"push {row}"] * (stop - start))
        grip = (stop - 1) % 2
        assert action == f"action: grip=+{grip}.00, pull={pull + 0.0:+.3f}, x=+{(stop - start) * 0.5:.1f}, {tasks}"
        context, *targets = shown(document)
        assert np.array_equal(context, full[row][start])
        assert any(np.array_equal(target, full[row][stop]) for target in targets)
        seen.add((row, start, stop))
    assert seen == {(r, a, a + h) for r, n in enumerate(LENGTHS) for a in range(n) for h in (1, 2, 3) if a + h < n}
    once = load(root, document_format, text="{task.first}, {task.there}")
    for row, _, _, action, _ in written(once, document_format):
        assert action == f"push {row}, push {row}"
    some = load(f"{root}#1:3", document_format, text=text)
    assert len(some) == len(dataset) - (LENGTHS[0] - 1)
    assert some.table.path(0).endswith("pusht/episode_000001")


def test_lerobot_that_is_not_read(tmp_path: Path, document_format: DocumentFormat) -> None:
    root = lerobot_2(tmp_path / "pusht")
    text = "action: {action[0]:+.2f}"
    with pytest.raises(Mistake, match=r"data.train: '.*pusht#9:' names none of the 3 episodes"):
        load(f"{root}#9:", document_format, text=text)
    with pytest.raises(Mistake, match="has no camera 'wrist'; there is observation.images.top"):
        load(root, document_format, text=text, camera="wrist")
    with pytest.raises(BrokenFile, match=r"episode_000000.parquet' .*column action has no 4 numbers in every row"):
        load(root, document_format, text="action: {action[3]:+.2f}")
    with pytest.raises(BrokenFile, match=r"there is no column wrist; there are .*action.*task"):
        load(root, document_format, text="action: {wrist:+.2f}")
    table = pd.read_parquet(root / "data/chunk-000/episode_000001.parquet")
    table.at[3, "action"] = np.array([np.nan, 0, 0])
    table.to_parquet(root / "data/chunk-000/episode_000001.parquet")
    with pytest.raises(BrokenFile, match=r"episode_000001.parquet' .*column action\[0\] has no number in row 3"):
        load(root, document_format, text=text)
    meta = root / "meta/info.json"
    meta.write_text(meta.read_text().replace("v2.1", "v1.6"))
    with pytest.raises(Mistake, match=r"info.json' says version 'v1.6'; v2.0, v2.1 or v3.0 is read"):
        load(root, document_format, text=text)


def test_pictures_in_tables_that_are_not_there(tmp_path: Path, document_format: DocumentFormat) -> None:
    text = "action: {action[0]:+.2f}"
    root = lerobot_2_of_pictures(tmp_path / "a")
    file = root / "data/chunk-000/episode_000001.parquet"
    columns = with_pictures(1)
    columns[CAMERA][2] = None
    pq.write_table(pa.Table.from_pydict(columns), file)
    dataset = load(f"{root}#1", document_format, text=text)
    with pytest.raises(BrokenFile, match=r"episode_000001.parquet, observation.images.top, row 2' .*no picture in it"):
        list(written(dataset, document_format))
    pq.write_table(pa.Table.from_pydict(with_pictures(1)).slice(1), file)
    with pytest.raises(BrokenFile, match=r"episode_000001.parquet' .*episode 1 has 6 rows, but 7 are listed"):
        load(root, document_format, text=text)
    meta = root / "meta/info.json"
    meta.write_text(meta.read_text().replace('"image"', '"float32"'))
    with pytest.raises(Mistake, match="a' has no feature of the type video or image"):
        load(root, document_format, text=text)
