"""From pictures to the backbone and back: which tokenizer and which projection each frame goes through."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from lightning.pytorch import Trainer
from torch import Tensor

from lit_mm.backbone import ModalityFeedForward, Transformer
from lit_mm.cli import main
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.decoding import Decoder
from lit_mm.generation.roll_out import RollOut, roll_out
from lit_mm.model.heads import sinusoidal_embedding
from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision import Dual, Pixels, Rae, Vae, VisualTokenizer
from tests.helpers.program import ROOT, SMALL

TEXT = Text(torch.tensor([5, 6, 7]))


def picture(seed: int, size: int = 16) -> Tensor:
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Negative(Pixels):
    """A reading space of its own: inverted squares of a few of the pixels."""

    def __init__(self) -> None:
        super().__init__(16, 8)
        self.channels = 20

    def encode(self, images: Tensor) -> Tensor:
        return 1 - images.reshape(-1, 4, 192)[..., :20].float().square() / 255**2


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(str(ROOT / "data/tiny/tokenizer.json"))


def lit(vision: VisualTokenizer, **settings: object) -> LitMultimodal:
    torch.manual_seed(0)
    module = LitMultimodal(
        backbone=lambda vocabulary: Transformer(
            vocabulary, dim=32, depth=2, heads=2, kv_heads=1, feed_forward=lambda dim: ModalityFeedForward(dim, 48)
        ),
        vision=vision,
        vocab_size=8192,
        **settings,  # type: ignore[arg-type]
    )
    module.configure_model()
    # A head of zeros would let no gradient through.
    torch.nn.init.normal_(module.model.velocity_head.linear.weight, std=0.1)
    return module


def decoder_of(module: LitMultimodal, tokenizer: Tokenizer) -> Decoder:
    return Decoder(module.model, module.vision, module.flow, module.sampler, tokenizer)


def packed(*rows: list[list[Text | Frame]], vision: VisualTokenizer) -> PackedBatch:
    """Rows of documents of segments."""
    made = [PackedRow(tuple(Document(tuple(d), "s") for d in row), n, 7 + n) for n, row in enumerate(rows)]
    size, tokens = vision.image_size, vision.num_tokens
    return pack_rows(made, length=64, tokens_per_frame=tokens, image_size=size, pad_id=0, sources=("s",))


def entering(module: LitMultimodal, run: Callable[[], object]) -> list[Tensor]:
    """What enters the backbone's blocks while `run` runs: (B, L, D) per call."""
    seen: list[Tensor] = []
    hook = module.model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    run()
    hook.remove()
    return seen


@torch.no_grad()
def test_clean_frames_enter_as_they_are_read_and_noised_ones_as_they_are_drawn() -> None:
    reader, drawer = Negative(), Pixels(16, 8)
    module = lit(Dual(reader, drawer))
    frames = [picture(i) for i in range(5)]
    clean = [True, False, False, True, True]
    batch = packed(
        [[TEXT, Frame(frames[0], True), TEXT, Frame(frames[1])], [Frame(frames[2]), TEXT]],
        [[TEXT, Frame(frames[3], True), Frame(frames[4], True), TEXT]],
        vision=module.vision,
    )
    times = torch.tensor([1.0, 0.2, 0.6, 1.0, 1.0])
    (vectors,) = entering(module, lambda: module.losses(batch, times))

    model = module.model
    noise = module.flow.sample(torch.zeros(5, 4, 192), times, batch.seeds, batch.frames_per_row).noise
    visual = model.visual_input
    assert visual.read_linear is not None
    for f, image in enumerate(frames):
        if clean[f]:
            t, tokens = 1.0, reader.encode(image[None])[0] @ visual.read_linear.weight.T
        else:
            t = float(times[f])
            tokens = ((1 - t) * noise[f] + t * drawer.encode(image[None])[0]) @ visual.linear.weight.T
        expected = tokens + visual.time(sinusoidal_embedding(torch.tensor([t]), visual.time_features))
        there = vectors.flatten(0, 1)[batch.visual_positions[f]]
        torch.testing.assert_close(there, expected, rtol=1e-5, atol=1e-5)
    text = (
        torch.ones(vectors.shape[:2], dtype=torch.bool).flatten().index_fill(0, batch.visual_positions.flatten(), False)
    )
    torch.testing.assert_close(vectors.flatten(0, 1)[text], model.backbone.embed(batch.tokens).flatten(0, 1)[text])


def gradients(*documents: list[Text | Frame]) -> dict[str, float]:
    """Size of the flow loss's gradient at both projections, for one row of these documents."""
    module = lit(Dual(Negative(), Pixels(16, 8)))
    batch = packed(list(documents), vision=module.vision)
    flow = module.losses(batch, torch.full((len(batch.frames),), 0.5)).flow
    visual = module.model.visual_input
    assert visual.read_linear is not None
    read, drawn = torch.autograd.grad(flow.sum(), (visual.read_linear.weight, visual.linear.weight))
    return {"read": read.abs().sum().item(), "drawn": drawn.abs().sum().item()}


def test_the_flow_loss_trains_the_reading_projection_only_through_clean_frames_in_sight() -> None:
    clean, noised = Frame(picture(0), clean=True), Frame(picture(1))
    assert gradients([clean, TEXT, noised])["read"] > 0
    assert gradients([clean, TEXT, noised])["drawn"] > 0
    assert gradients([TEXT, noised, TEXT, noised])["read"] == 0
    assert gradients([noised, TEXT, clean])["read"] == 0, "a frame was seen before it came"
    assert gradients([clean, TEXT], [noised, TEXT])["read"] == 0, "a frame of another document was seen"
    assert gradients([clean, TEXT]) == {"read": 0, "drawn": 0}


def test_one_tokenizer_has_one_projection() -> None:
    names = {name for name, _ in lit(Pixels(16, 8)).model.visual_input.named_parameters()}
    assert names == {"linear.weight", "time.0.weight", "time.0.bias", "time.2.weight", "time.2.bias"}
    dual = {name for name, _ in lit(Dual(Negative(), Pixels(16, 8))).model.visual_input.named_parameters()}
    assert dual == names | {"read_linear.weight"}


def test_drawn_frames_are_read_again_when_they_become_context(tokenizer: Tokenizer) -> None:
    reader, drawer = Negative(), Pixels(16, 8)
    module = lit(Dual(reader, drawer), sampler=FlowSampler(steps=2, guidance_scale=1.0))
    decoder = decoder_of(module, tokenizer)
    context = torch.stack([picture(0), picture(1)])
    drawn: list[Tensor] = []
    seen = entering(module, lambda: drawn.extend(roll_out(decoder, [RollOut(context, ("left", "right"), seed=0)])))

    pictures = torch.cat([context, decoder.decode(drawn[0])])
    visual = module.model.visual_input
    assert visual.read_linear is not None
    at_one = visual.time(sinusoidal_embedding(torch.ones(1), visual.time_features))
    vectors = reader.encode(pictures) @ visual.read_linear.weight.T + at_one
    # For each frame its context is read once, pictures 0 and 1, then 1 and 2, the one just drawn; the action and
    # two evaluations follow.
    assert len(seen) == 8
    for rows, wanted in ((seen[0], vectors[:2]), (seen[4], vectors[1:3])):
        windows = rows[0].unfold(0, 4, 1).transpose(1, 2)  # every run of four positions
        for tokens in wanted:
            nearest = (windows - tokens).abs().amax((1, 2)).min()
            assert nearest < 1e-5


@torch.no_grad()
def test_text_is_written_about_pictures_as_they_are_read(tokenizer: Tokenizer) -> None:
    module = lit(Dual(Negative(), Pixels(16, 8)))
    decoder = decoder_of(module, tokenizer)
    prefix = [Text(tokenizer.ids(tokenizer.bos_id, tokenizer.boi_id)), Frame(picture(3), clean=True)]
    seen = entering(module, lambda: decoder.write_text([prefix], [0], max_tokens=1))
    visual = module.model.visual_input
    assert visual.read_linear is not None
    at_one = visual.time(sinusoidal_embedding(torch.ones(1), visual.time_features))
    tokens = Negative().encode(picture(3)[None])[0] @ visual.read_linear.weight.T + at_one
    torch.testing.assert_close(seen[0][0, 2:6], tokens, rtol=1e-5, atol=1e-5)


# ---- noise shift and width


class RecordingFlow(FlowMatching):
    """Remembers the shift that training and validation timesteps are drawn with."""

    def __init__(self) -> None:
        super().__init__()
        self.shifts: list[float] = []

    def training_timesteps(self, *given: object) -> Tensor:
        self.shifts.append(float(given[-1]))  # type: ignore[arg-type]
        return super().training_timesteps(*given)  # type: ignore[arg-type]

    def timestep_grid(self, *given: object) -> Tensor:
        self.shifts.append(float(given[-1]))  # type: ignore[arg-type]
        return super().timestep_grid(*given)  # type: ignore[arg-type]


class RecordingSampler(FlowSampler):
    """Remembers the shift that frames are drawn with."""

    def __init__(self) -> None:
        super().__init__(steps=1, guidance_scale=1.0)
        self.shifts: list[float] = []

    def estimates(
        self, velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, shift: float = 1.0
    ) -> Iterator[Tensor]:
        self.shifts.append(shift)
        return super().estimates(velocity, noise, shift)


def small_vae(folder: Path) -> Vae:
    """Stable Diffusion's downsampling and channels at a small width."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    AutoencoderKL(block_out_channels=(4,) * 4, norm_num_groups=2, **blocks).save_pretrained(folder)
    return Vae(str(folder), image_size=64, patch_size=2)


TOKENIZERS: dict[str, tuple[Callable[[Path], VisualTokenizer], float]] = {
    # numbers in a picture / 4096, by hand
    "rae": (lambda _: Rae(folder="rae_tiny"), 16 * 256 / 4096),
    "vae": (small_vae, 1.0),  # 16 tokens of 16 channels: fewer numbers than 4096, no shift
    "pixels": (lambda _: Pixels(64, 16), 64 * 64 * 3 / 4096),
    "dual": (lambda _: Dual(read=Rae(folder="rae_tiny"), draw=Pixels(64, 16)), 64 * 64 * 3 / 4096),
    "dual the other way": (lambda _: Dual(read=Pixels(64, 16), draw=Rae(folder="rae_tiny")), 16 * 256 / 4096),
    "large pixels": (lambda _: Pixels(224, 56), 224 * 224 * 3 / 4096),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_training_validation_and_sampling_share_the_shift_of_the_space_that_is_drawn(
    name: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    make, numbers = TOKENIZERS[name]
    vision, flow, sampler = make(tmp_path), RecordingFlow(), RecordingSampler()
    module = lit(vision, flow=flow, sampler=sampler)
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, barebones=True)
    size = vision.image_size
    document = [TEXT, Frame(picture(0, size), clean=True), TEXT, Frame(picture(1, size))]
    batch = packed([document], vision=vision)
    module.training_step(batch, 0)
    module.validation_step(batch, 0)
    prefix = [*document[:3], Text(torch.tensor([tokenizer.boi_id]))]
    drawn = decoder_of(module, tokenizer).draw_frames([prefix], [0])
    assert drawn.shape == (1, 3, size, size)
    assert [*flow.shifts, *sampler.shifts] == [pytest.approx(math.sqrt(numbers))] * 3


def test_the_width_warning_is_about_the_space_that_is_drawn() -> None:
    with pytest.warns(UserWarning, match=r"model.backbone.dim is 32, narrower than the 192 channels"):
        lit(Dual(Negative(), Pixels(16, 8)))


def test_a_wide_reading_space_needs_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    lit(Dual(Pixels(16, 8), Negative()))
    assert not [w for w in recwarn if "narrower" in str(w.message)]


@pytest.mark.parametrize("file", ["pixels.yaml", "pixels_paper.yaml"])
@pytest.mark.parametrize("prediction", ["x", "v"])
def test_pixels_with_either_prediction_are_one_value_away(
    file: str, prediction: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    eye = f"--model.vision=configs/vision/{file}"
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config=configs/tiny.yaml", eye, f"--model.flow.prediction={prediction}", "--print_config"])
    assert end.value.code in (0, None)
    assert f"prediction: {prediction}\n" in capsys.readouterr().out


# ---- runs


def test_a_dual_run_trains_and_its_checkpoint_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    log = f"--trainer.logger.save_dir={tmp_path}"
    saving = [
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={tmp_path}",
        "--trainer.callbacks.every_n_train_steps=3",
    ]
    eye = ["--model.vision=configs/vision/dual_tiny.yaml", "--model.flow.prediction=x"]
    main(["fit", "--config=configs/tiny.yaml", *SMALL, *eye, log, *saving, "--trainer.max_steps=3"])
    (checkpoint,) = tmp_path.glob("*.ckpt")
    content = torch.load(checkpoint, weights_only=False)
    assert content["vision"].startswith("dual:rae:")
    assert content["vision"].endswith("+pixels:64/16")
    assert not [name for name in content["state_dict"] if name.startswith("vision.")]
    assert content["state_dict"]["model.visual_input.read_linear.weight"].shape == (64, 256)

    few = ["--model.sampler.steps=2", f"--data.prompts={ROOT / 'configs/prompts/tiny.yaml'}"]
    writing = ["--trainer.callbacks+=callbacks.pages.prediction_writer.PredictionWriter"]
    main(["predict", f"--ckpt_path={checkpoint}", "--trainer.callbacks=[]", *writing, *few, log])
    assert list(tmp_path.rglob("*.png"))


def test_a_checkpoint_of_one_tokenizer_is_refused_by_two(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    log = f"--trainer.logger.save_dir={tmp_path}"
    with pytest.raises(SystemExit) as end:
        main(["validate", f"--ckpt_path={trained}", "--model.vision=configs/vision/dual_tiny.yaml", log])
    said = str(end.value.code)
    assert "'pixels:64/16'" in said
    assert "'dual:rae:" in said
    assert "--ckpt_path" in said
    assert "\n" not in said
