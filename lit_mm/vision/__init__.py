from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.pixels import Pixels
from lit_mm.vision.rae import Rae, RaeConfig

__all__ = ["Pixels", "Rae", "RaeConfig", "VisualTokenizer"]
