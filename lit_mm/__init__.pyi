from lit_mm.loaded_model import LoadedModel as LoadedModel
from lit_mm.loading import load as load
