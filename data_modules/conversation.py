"""Conversations about pictures, or without any: questions are read, answers are learned."""

from __future__ import annotations

from typing import Any, Literal

from data_modules.base import DocumentDataModule
from data_modules.composed import ComposedDataset, folder_of
from data_modules.dataset import DocumentFormat
from data_modules.mixing.mixture import Mixture
from data_modules.reading.cropping import CENTRE, Cropping
from data_modules.reading.files import warn
from data_modules.source import Source, Split
from lit_mm.mistake import Mistake

Learned = Literal["answers", "all"]


class ConversationSource(Source):
    """Turns of texts and pictures, with loss on the answers alone.

    Files: LLaVA, Cambrian and ShareGPT JSON (`conversations` of `from` and `value`), chat files (`messages` of `role`
    and `content`), both also as JSON Lines, compressed with gzip or zstd, and as Parquet or on the Hub, where pictures
    may be inside; the Cauldron's `texts` of `user` and `assistant`. Pictures of an entry are in `image` or `images`,
    and stand where a text says `<image>`.

    How turns are written down is `template` (see `data_modules.prompting.template.Template`), that of the mixture
    inside one; prompts of the kind `answer` are asked in the same way.

    Args:
        train: file, folder, pattern, or Hub name such as `hf://owner/name`.
        val: the same for validation; none by default.
        pictures: folder that the paths of pictures are relative to; by default that of the file that names them.
        loss: what is learned: the `answers` alone, or `all` texts.
        window: longer conversations are cut between turns into documents of at most so many positions, each of which
            shows the earlier pictures again; the row length is a good choice.
        crop: how pictures become squares, by a rule other than `random` (see `data_modules.reading.cropping.Cropping`);
            their centres by default.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        pictures: str | None = None,
        loss: Learned = "answers",
        window: int = 512,
        crop: Cropping = CENTRE,
    ) -> None:
        super().__init__()
        if window < 3:
            raise Mistake(f"window: {window} positions cannot hold a question and an answer; give the row length")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.folder, self.loss, self.window = folder_of(pictures), loss, window
        self.crop = crop.fixed()

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> ComposedDataset | None:
        """Conversations of one split; texts are tokenized once, pictures are read when drawn."""
        from data_modules.reading.conversation_layout import lay_out_conversations
        from data_modules.reading.conversations import CONVERSATIONS
        from data_modules.reading.document_rows import documents_of
        from data_modules.reading.page_pictures import PagePictures
        from data_modules.reading.pages import load_pages
        from data_modules.reading.picture_identity import root_of
        from data_modules.reading.pictures import Square

        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        pages = load_pages(path, split, key, self.tolerance, CONVERSATIONS, self.listing)
        settings = {
            "tokenizer": format.tokenizer,
            "template": self.template,
            "learn_all": self.loss == "all",
            "window": self.window,
            "tokens_per_frame": format.tokens_per_frame,
        }
        documents, left_out = documents_of(pages, lay_out_conversations, settings, key)
        if left_out:
            warn("%s: left out %d questions, longer with their answers than window (%d)", key, left_out, self.window)
        if not len(documents):
            raise Mistake(f"{key}: '{path}' holds no conversation that fits {self.window} positions (window)")
        pictures = PagePictures(documents, pages, self.folder, Square(format.image_size, self.crop.still))
        pictures.root = root_of(path)
        return ComposedDataset(source, documents, pages, pictures, format)


class ConversationDataModule(DocumentDataModule):
    """Conversations alone, see `ConversationSource`."""

    def mix(self, **mixed: Any) -> Mixture:
        """The source, of these arguments."""
        return Mixture.of_one(ConversationSource(**mixed))
