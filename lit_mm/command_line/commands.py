"""What `lit-mm` can do, and its first screen of help. Imports next to nothing, so that this screen is there at once."""

from __future__ import annotations

import argparse

DESCRIPTION = "Train one model on text, pictures and video, validate it, and let it write and draw."
COMMANDS = {
    "fit": "Train a model: lit-mm fit --config configs/tiny.yaml",
    "validate": "Measure one on the validation data: lit-mm validate --ckpt_path CHECKPOINT",
    "predict": "Let one write, describe, draw and imagine: lit-mm predict --ckpt_path CHECKPOINT --data.prompts FILE",
}
_CLASSES = (
    "--model takes lit_mm.module.LitMultimodal or your own LightningModule; --data takes a class of data_modules "
    "(mixture.MixtureDataModule, text.TextDataModule, image_text.ImageTextDataModule, video.VideoDataModule, "
    "action_video.ActionVideoDataModule) or your own. Their options are listed by --model.help CLASS and --data.help "
    "CLASS, such as --model.help lit_mm.module.LitMultimodal. A FILE that names its class replaces what was there."
)
_SHOWN = {"--model.help": "lit_mm.module.LitMultimodal", "--data.help": "data_modules.mixture.MixtureDataModule"}
ENDS = {
    "fit": _CLASSES,
    "validate": "There is no third command for test data: give its folder as --data.val FOLDER, or in a mixture as "
    "--data.sources.NAME.val FOLDER. " + _CLASSES,
    "predict": _CLASSES,
}
_MORE = """\
all options of a command:     lit-mm fit --help
those of a part of a run:     lit-mm fit --model.help lit_mm.module.LitMultimodal
                              lit-mm fit --data.help data_modules.mixture.MixtureDataModule
the configuration of a run:   lit-mm fit --config configs/tiny.yaml --print_config
a third split, as for tests:  lit-mm validate --ckpt_path CHECKPOINT --data.sources.text.val FOLDER
one callback's setting:       lit-mm fit … --trainer.callbacks.Checkpoints.every_n_train_steps 100

Configurations that come with lit-mm (configs/…) are found from any folder.
"""


def completed_help(args: list[str]) -> list[str]:
    """The arguments; `--model.help` and `--data.help` without a class are about the usual one."""
    alone = (
        arg in _SHOWN and all(after.startswith("-") for after in args[i + 1 : i + 2]) for i, arg in enumerate(args)
    )
    return [f"{arg}={_SHOWN[arg]}" if without else arg for arg, without in zip(args, alone, strict=True)]


def first_screen() -> str:
    """What `lit-mm --help` prints."""
    parser = argparse.ArgumentParser(
        "lit-mm", description=DESCRIPTION, epilog=_MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar="{" + ",".join(COMMANDS) + "}")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser.format_help()
