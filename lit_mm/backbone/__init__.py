from lit_mm.backbone.experts import ExpertFeedForward
from lit_mm.backbone.feed_forward import DenseFeedForward, FeedForward, ModalityFeedForward
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.routing import Routing
from lit_mm.backbone.transformer import Transformer

__all__ = [
    "DenseFeedForward",
    "ExpertFeedForward",
    "FeedForward",
    "ModalityFeedForward",
    "Routing",
    "SequenceLayout",
    "Transformer",
]
