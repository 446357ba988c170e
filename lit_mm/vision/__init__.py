from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.dual import Dual
from lit_mm.vision.pixels import Pixels
from lit_mm.vision.rae import Rae
from lit_mm.vision.rae_network import RaeConfig
from lit_mm.vision.vae import Vae

__all__ = ["Dual", "Pixels", "Rae", "RaeConfig", "Vae", "VisualTokenizer"]
