"""A mistake of a beginner is one sentence with the key or file, what was found, and what would be right."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lit_mm.cli import main
from tests.helpers.program import ROOT

TINY = "fit --config configs/tiny.yaml "
OWN_MODULE = """
from lit_mm.vision import Pixels, VisualTokenizer

class Half(VisualTokenizer):
    def encode(self, images):
        return images

class Sized(Pixels):
    def __init__(self, size: int):
        super().__init__(64, size)

class Faulty(Pixels):
    def __init__(self):
        super().__init__(64, 16)
        self.notes.append(1)

from torch.optim import SGD

class Rule(SGD):
    def __init__(self, params, lr: float):
        super().__init__(params, lr=self.rate)

NUMBER = 3
"""
FILES = {
    "own_eye.py": OWN_MODULE,
    "own_import.py": "\nimport nothing_of_this_name\n",
    "own_syntax.py": "class Eye(:\n",
    "half.yaml": "class_path: own_eye.Half",
    "importing.yaml": "class_path: own_import.Eye",
    "indented.yaml": "class_path: data_modules.text.TextDataModule\n  init_args:\n    train: x\n",
    "tab.yaml": "class_path: data_modules.text.TextDataModule\ninit_args:\n\ttrain: x\n",
    "plain.yaml": "just words",
    "modle.yaml": "modle: {}",
    "steps.yaml": "trainer: {max_steps: 5}",
    "max_step.yaml": "trainer: {max_step: 5}",
    "flow.yaml": "model: {class_path: lit_mm.module.LitMultimodal, init_args: {flow: {predction: v}}}",
    "garbage.ckpt": "garbage",
}
CASES = [
    # classes of one's own
    ("--model.vision my_eye.Eye", "model.vision is 'my_eye.Eye', but there is no module 'my_eye' in the working folder"),
    ("--model.vision own_ey.Half", "there is no module 'own_ey' in the working folder '{}' or among installed packages; did you mean 'own_eye'?"),
    ("--model.vision own_eye.Haf", "model.vision is 'own_eye.Haf', but module 'own_eye' has no 'Haf'; did you mean 'Half'?"),
    ("--model.vision own_eye.Half", "model.vision is 'own_eye.Half', which is abstract: write its decode, fingerprint, or name a class that has them"),
    ("--model.vision half.yaml", "model.vision is 'half.yaml', whose class_path is 'own_eye.Half', which is abstract"),
    ("--model.vision own_import.Eye", "whose module cannot be imported: '{}/own_import.py', line 2: ModuleNotFoundError: No"),
    ("--model.vision importing.yaml", "is 'importing.yaml', whose class_path is 'own_import.Eye', whose module cannot be"),
    ("--model.vision own_syntax.Eye", "'{}/own_syntax.py', line 1: SyntaxError: "),
    ("--model.vision own_eye.Sized", "model.vision (Sized) lacks size; give model.vision.size"),
    ("--model.vision own_eye.Faulty", "'{}/own_eye.py', line 15: AttributeError: 'Faulty' object has no attribute 'notes'; LIT_MM_"),
    ("--model.optimizer own_eye.Rule --model.optimizer.lr 1", "model.optimizer: '{}/own_eye.py', line 21: AttributeError: 'Rule' object has no attribute 'rate'; LIT_MM_"),
    ("--model.vision own_eye.NUMBER", "model.vision is 'own_eye.NUMBER', which is no class but 3; give a VisualTokenizer"),
    ("--model torch.nn.Linear", "model is 'torch.nn.Linear', which is no LightningModule; give a class derived from that"),
    ("--trainer.callbacks+=my_cb.Hello", "trainer.callbacks is 'my_cb.Hello', but there is no module 'my_cb'"),
    ("--trainer.callbacks+=torch.nn.Linear", "trainer.callbacks is 'torch.nn.Linear', which is no Callback; give"),
    # classes of this program
    ("--model.flow lit_mm.flow.FlowMatchin", "module 'lit_mm.flow' has no 'FlowMatchin'; did you mean 'FlowMatching'?"),
    ("--model.flow lit_mm.flwo.FlowMatching", "there is no module 'lit_mm.flwo' in 'lit_mm'; did you mean 'flow'?"),
    ("--model.optimizer torch.optim.Adamw", "module 'torch.optim' has no 'Adamw'; did you mean 'AdamW'?"),
    ("--model.vision pixls", "model.vision is 'pixls', which is neither a file nor a class known here; did you mean 'Pixels'?"),
    ("--model.vision 3", "model.vision is '3', which is neither a file nor a class known here; give a file, or package"),
    ("--trainer.logger tensorbord", "neither a file nor a class known here; did you mean 'TensorBoardLogger'?"),
    # files
    ("--data indented.yaml", "data is 'indented.yaml', which is not YAML (line 2: mapping values are not allowed here); correct"),
    ("--data tab.yaml", "data is 'tab.yaml', which is not YAML (line 3: found character"),
    ("--data plain.yaml", "data is 'plain.yaml', which names no class; write class_path: package.module.Class into it"),
    ("--data configs/date/text_only.yaml", "there is no such file; did you mean 'configs/data/text_only.yaml'?"),
    ("--data.sources.text configs/source/txet.yaml", "data.sources.text is 'configs/source/txet.yaml', but there is no such file; did you mean 'configs/source/text.yaml'?"),
    ("--config configs/tniy.yaml", "--config: there is no file 'configs/tniy.yaml'; did you mean 'configs/tiny.yaml'?"),
    ("--config configs/trainer/gpu.yaml", "holds values of the trainer alone; give it as --trainer configs/trainer/gpu.yaml"),
    ("--config configs/data/text_only.yaml", "holds one part of a configuration; give it as --data configs/data/text_only"),
    ("--config configs/callbacks/default.yaml", "give it as --trainer.callbacks configs/callbacks/default.yaml"),
    ("--config modle.yaml", "--config: 'modle.yaml' has a key 'modle'; did you mean 'model'?"),
    ("--config max_step.yaml", "there is no option --trainer.max_step; did you mean '--trainer.max_steps'?"),
    ("--config flow.yaml", "model.flow.predction is unknown; did you mean 'prediction'? FlowMatching takes prediction,"),
    ("--ckpt_path garbage.ckpt", "the checkpoint 'garbage.ckpt' cannot be read (it is cut short, or none at all); give another"),
    ("--ckpt_path nothing.ckpt", "--ckpt_path: 'nothing.ckpt' does not exist; give a .ckpt file or folder that fit has written"),
    ("--data configs/data", "data is 'configs/data', which is a folder; give a YAML file, or package.module.Class; write a YAML file that names the folder as its `train`"),
    ("--model.vision configs/vision", "which is a folder; give a YAML file, or package.module.Class"),
    # names of options
    ("--model.optimizer.learning_rate 1e-3", "model.optimizer.learning_rate is unknown; did you mean 'lr'? AdamW takes "),
    ("--model.backbon x", "model.backbon is unknown; did you mean 'backbone'? LitMultimodal takes backbone,"),
    ("--model.backbone.dpeth 3", "model.backbone.dpeth is unknown; did you mean 'depth'? Transformer takes dim, depth,"),
    ("--data.loader.rowz 3", "data.loader.rowz is unknown; did you mean 'rows'? LoaderConfig takes "),
    ("--data.sources.text.trian x", "data.sources.text.trian is unknown; did you mean 'train'? TextSource takes train,"),
    ("--model.vocab_size.x 3", "model.vocab_size.x is unknown; model.vocab_size has no parts"),
    ("--trainer.max_stepss 3", "there is no option --trainer.max_stepss; did you mean '--trainer.max_steps'?"),
    ("--trainer.max_step 3", "there is no option --trainer.max_step; did you mean '--trainer.max_steps'?"),
    ("max_steps=3", "'max_steps=3' belongs to no option; a configuration is given with --config FILE"),
    ("--trainer.max_steps", "--trainer.max_steps has no value; write one behind it"),
    # values
    ("--model.flow.shift abc", "model.flow.shift is abc; it takes a value of type float"),
    ("--model.optimizer.lr fast", "model.optimizer.lr is fast; it takes a value of type float"),
    ("--model.flow.prediction q", "model.flow.prediction is q; it takes one of 'x', 'v'"),
    ("--trainer.precision int3", "trainer.precision is int3; it takes one of 64, 32, 16, "),
    ("--trainer.max_steps 1.5", "trainer.max_steps is 1.5; it takes a value of type int"),
    ("--data.weights.text x", "data.weights.text is x; it takes a value of type float"),
    ("--data.weights 3", "data.weights is 3; it takes a value of type dict[str, float]"),
    ("--model.schedule.warmup_steps=-5", "model.schedule.warmup_steps is -5; use 0 or more"),
    ("--model.backbone.depth=0", "model.backbone.depth is 0; use 1 or more"),
    ("--model.flow.shift=0", "model.flow.shift is 0.0; use a positive number, or null"),
    ("--seed_everything=-1", "seed_everything: -1 is not in bounds"),
    ("--model.flow torch.nn.Linear", "model.flow is 'torch.nn.Linear', which is no FlowMatching; give a class derived"),
    ("--trainer.callbacks ModelCheckpoint --trainer.callbacks.mode up", "ModelCheckpoint refuses its arguments: `mode` can"),
    # callbacks by name
    ("--trainer.callbacks.Checkpoint.save_top_k 3", "there is no Checkpoint in trainer.callbacks; did you mean 'Checkpoints'? it has TrainingMonitor,"),
    ("--trainer.callbacks.Checkpoints.every_n 3", "trainer.callbacks.Checkpoints.every_n is unknown; "),
    ("--trainer.callbacks.Checkpoints.save_top_k x", "trainer.callbacks.Checkpoints.save_top_k is x; it takes a value of type int"),
    ("--trainer.callbacks.Checkpoints 3", "write --trainer.callbacks.Checkpoints.ARGUMENT 3"),
    ("--trainer.callbacks.6.x 3", "there is no 6 in trainer.callbacks; it has TrainingMonitor,"),
    ("--trainer.callbacks.documents 3", "has no 'documents'; write --trainer.callbacks.Samples.documents"),
    ("--trainer.callbacks+=callbacks.checkpoints.Checkpoints --trainer.callbacks.Checkpoints.save_top_k 3", "there are 2 of that class"),
]  # fmt: skip
WITHOUT = [
    ("fit", "fit has no model and no data; start with --config configs/tiny.yaml"),
    ("validate", "validate has no model and no data; give --ckpt_path CHECKPOINT"),
    ("predict --data.prompts x", "predict has no model and no data; give --ckpt_path CHECKPOINT, such as "),
    ("fit configs/tiny.yaml", "'configs/tiny.yaml' belongs to no option; write --config configs/tiny.yaml"),
    ("train --config configs/tiny.yaml", "there is no command 'train'; there are fit, validate, predict"),
    ("predcit --config configs/tiny.yaml", "there is no command 'predcit'; did you mean 'predict'?"),
    ("--config configs/tiny.yaml", "no command was given; write lit-mm fit, lit-mm validate or lit-mm predict first"),
    ("fit --config configs/trainer/gpu.yaml", "give it as --trainer configs/trainer/gpu.yaml"),
    ("fit --config steps.yaml", "fit lacks its data and model; start with --config configs/tiny.yaml"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that a beginner works in, with files of one's own."""
    folder = tmp_path_factory.mktemp("work")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name in ("configs", "data"):
        (folder / name).symlink_to(ROOT / name)
    yield folder
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture
def said(
    folder: Path, build_once: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """What the program ends with, from within that folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def said(command: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command))
        assert isinstance(ended.value.code, str), capsys.readouterr().err
        return ended.value.code

    return said


@pytest.mark.parametrize(("args", "sentence"), CASES, ids=[args for args, _ in CASES])
def test_one_sentence(args: str, sentence: str, said: Callable[[str], str], folder: Path) -> None:
    text = said(TINY + args)
    assert text.startswith("error: ")
    assert sentence.format(folder) in text
    assert "\n" not in text
    assert "Namespace" not in text


@pytest.mark.parametrize(("command", "sentence"), WITHOUT, ids=[command for command, _ in WITHOUT])
def test_with_nothing_to_start_from(command: str, sentence: str, said: Callable[[str], str]) -> None:
    text = said(command)
    assert text.startswith(f"error: {sentence}") or (text.startswith("error: --config") and sentence in text)
    assert "\n" not in text


@pytest.mark.parametrize(
    "args", ["--model.vision own_import.Eye", "--model.vision own_eye.Faulty", "--trainer.max_step 3"]
)
def test_a_traceback_can_be_had(args: str, said: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_MM_TRACEBACK", "1")
    with pytest.raises(ValueError, match="own_import.py|own_eye.py|max_steps"):
        said(TINY + args)


def test_the_first_help_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    help_ = " ".join(capsys.readouterr().out.split())
    for command in ("lit-mm fit --config", "lit-mm validate --ckpt_path", "lit-mm predict --ckpt_path"):
        assert command in help_


@pytest.mark.parametrize(("args", "shown"), [("--model.help", "--model.backbone"), ("--data.help", "--data.sources")])
def test_help_without_a_class_is_about_the_usual_one(
    args: str, shown: str, build_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *args.split()])
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_the_help_of_a_command_names_the_classes(
    command: str, build_once: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    help_ = " ".join(capsys.readouterr().out.split())
    for words in ("--model.help lit_mm.module.LitMultimodal", "mixture.MixtureDataModule", "text.TextDataModule"):
        assert words in help_
    assert ("--data.sources.NAME.val FOLDER" in help_) == (command == "validate")
