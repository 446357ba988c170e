"""Small real files and a tokenizer for the tests of the data modules."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import datasets
import numpy as np
import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from data_modules.dataset import DocumentFormat
from lit_mm.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def document_format(tmp_path_factory: pytest.TempPathFactory) -> DocumentFormat:
    """A byte-level tokenizer, pictures of 32 x 32, 4 tokens a frame."""
    backend = HuggingFaceTokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["the cat sat on the mat", "a red cube and a blue ball"], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    backend.save(str(path))
    return DocumentFormat(Tokenizer(path), image_size=32, tokens_per_frame=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts with an empty `datasets` cache."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def moving_picture(count: int, height: int = 32, width: int = 32, seed: int = 0) -> list[np.ndarray]:
    """Frames (height, width, 3) uint8 that all differ: a coloured square travels over a slowly changing pattern."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 255, (height // 8, width // 8, 3))
    pattern = np.kron(pattern, np.ones((8, 8, 1))).astype(np.float64)
    frames = []
    for i in range(count):
        frame = (pattern * (0.5 + 0.4 * np.sin(i / 9))).astype(np.uint8)
        x, y = (3 * i) % (width - 8), (2 * i) % (height - 8)
        frame[y : y + 8, x : x + 8] = ((17 * i) % 256, (91 * i) % 256, (203 * i) % 256)
        frames.append(frame)
    return frames


def write_video(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "libx264",
    rate: int = 10,
    times: list[float] | None = None,
    **options: str,
) -> Path:
    """Encode frames, at `rate` a second or, for a variable rate, at `times` in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if times:
                frame.pts, frame.time_base = round(times[i] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> list[np.ndarray]:
    """Every frame of a video, from the first to the last, with nothing but PyAV."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
