"""One world's data in the layouts that data of the field come in."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.recipes.episode_layouts import write_episode_layouts
from data_modules.recipes.prepare import Counts
from lit_mm.lab.scene import WorldFile
from lit_mm.tokenizer import Tokenizer

SPLITS = ("train", "val")
ON_A_PAGE = 3  # pictures
IN_A_TAR = 50  # samples
SPEECHES = 20  # long ones, of which a sample is enough


def write_layouts(world: Path, out: Path, tokenizer: Tokenizer) -> Counts:
    """Write every layout.

    Args:
        world: a folder that the recipe of a world has made.
        out: an empty folder.
        tokenizer: of the tokens that are written.
    """
    counts: Counter[str] = Counter()
    for split in SPLITS:
        drawing, reading, questions = (list(_rows(world, name, split)) for name in ("drawing", "reading", "questions"))
        counts["texts"] += write_texts(world, out / "text" / split)
        counts["tokens"] += write_tokens(world, out / "tokens" / split, tokenizer)
        counts["pairs in tars"] += write_tars(drawing, out / "tars" / split)
        counts["pictures of classes"] += write_classes(
            drawing, WorldFile.load(world / "world.json"), out / "classes" / split
        )
        counts["captions of COCO"] += write_coco(reading, out / "coco", split)
        counts["conversations"] += write_conversations(questions, out / "conversation", split)
        counts["pages"] += write_pages(reading, out / "interleaved" / f"{split}.parquet")
        for name in ("video", "action_video"):
            shutil.copytree(world / name / split, out / name / split)
        frames = write_episode_layouts(world / "action_video" / split, out)
        counts.update({f"frames of {name}": count for name, count in frames.items()})
    return dict(counts)


def _rows(world: Path, name: str, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a folder of pictures, with the path of each in `file`."""
    folder = world / name / split
    with open(folder / "metadata.jsonl", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield {**row, "file": folder / row["file_name"]}


def write_texts(world: Path, folder: Path) -> int:
    """Texts as JSON Lines that are compressed."""
    folder.mkdir(parents=True)
    lines = (world / "text" / folder.name / "worlds.jsonl").read_bytes()
    (folder / "part-0.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    return lines.count(b"\n")


def write_tokens(world: Path, prefix: Path, tokenizer: Tokenizer) -> int:
    """Speeches as Megatron writes tokens: `prefix`.bin and .idx, each document ended by `<eos>`."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with open(world / "speeches" / prefix.name / "speeches.jsonl", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, SPEECHES)]
    ids = [np.array([*one, tokenizer.eos_id], "<u2") for one in tokenizer.encode_batch(texts)]
    sizes = np.array([len(one) for one in ids], "<i4")
    places = 2 * (np.cumsum(sizes, dtype="<i8") - sizes)
    ends = np.arange(len(ids) + 1, dtype="<i8")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(ids), len(ends))  # version 1 of tokens of uint16
    prefix.with_name(prefix.name + ".bin").write_bytes(b"".join(one.tobytes() for one in ids))
    index = head + sizes.tobytes() + places.astype("<i8").tobytes() + ends.tobytes()
    prefix.with_name(prefix.name + ".idx").write_bytes(index)
    return int(sizes.sum())


def write_tars(rows: Sequence[dict[str, Any]], folder: Path) -> int:
    """Pairs as img2dataset writes them: a short text, and beside it all that is known, such as a longer caption."""
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, len(rows), IN_A_TAR)):
        with tarfile.open(folder / f"{number:05}.tar", "w") as tar:
            for place, row in enumerate(rows[start : start + IN_A_TAR], start):
                caption = row["caption"]
                known = {"recaption": caption, "words": len(caption.split()), "status": "success"}
                members = {
                    "png": row["file"].read_bytes(),
                    "txt": caption.partition(". ")[0].encode(),
                    "json": json.dumps(known).encode(),
                }
                for ending, content in members.items():
                    member = tarfile.TarInfo(f"{place:09}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return len(rows)


def write_classes(rows: Sequence[dict[str, Any]], rules: WorldFile, folder: Path) -> int:
    """A folder of pictures for each ground that most of a view is of."""
    grounds = [tile.ground for tile in rules.tiles]
    for row in rows:
        most = Counter(grounds[tile] for line in row["tiles"] for tile in line).most_common(1)[0][0]
        (folder / most).mkdir(parents=True, exist_ok=True)
        shutil.copy(row["file"], folder / most / row["file_name"])
    return len(rows)


def write_coco(rows: Sequence[dict[str, Any]], folder: Path, split: str) -> int:
    """`annotations/captions_train.json` and `train/*.png`; each sentence of a caption is an annotation."""
    for part in (split, "annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        shutil.copy(row["file"], folder / split / row["file_name"])
        images.append({"id": number, "file_name": f"{split}/{row['file_name']}", "width": 64, "height": 64})
        for sentence in row["caption"].rstrip(".").split(". "):
            annotations.append({"id": len(annotations), "image_id": number, "caption": f"{sentence}."})
    content = {"info": {"description": "a small world"}, "images": images, "annotations": annotations}
    (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return len(annotations)


def write_conversations(rows: Sequence[dict[str, Any]], folder: Path, split: str) -> int:
    """As LLaVA writes them: `train.json`, a list, and pictures in a folder."""
    (folder / "pictures" / split).mkdir(parents=True)
    entries = []
    for row in rows:
        shutil.copy(row["file"], folder / "pictures" / split / row["file_name"])
        turns = [
            {"from": speaker, "value": text}
            for question, answer, *_ in row["questions"]
            for speaker, text in (("human", question), ("gpt", answer))
        ]
        if turns:
            turns[0]["value"] = f"<image>\n{turns[0]['value']}"
            image = f"pictures/{split}/{row['file_name']}"
            entries.append({"id": row["file_name"], "image": image, "conversations": turns})
    (folder / f"{split}.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False), encoding="utf-8")
    return len(entries)


def write_pages(rows: Sequence[dict[str, Any]], file: Path) -> int:
    """As OBELICS has them, with the pictures inside: captions and pictures of one world in turns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pages = []
    for start in range(0, len(rows), ON_A_PAGE):
        texts: list[str | None] = []
        images: list[dict[str, Any] | None] = []
        for row in rows[start : start + ON_A_PAGE]:
            texts += [row["caption"], None]
            images += [None, {"bytes": row["file"].read_bytes(), "path": row["file_name"]}]
        pages.append({"texts": texts, "images": images, "metadata": json.dumps({"world": rows[start]["world"]})})
    pq.write_table(pa.Table.from_pylist(pages), file)
    return len(pages)
