from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.path import FlowSample
from lit_mm.flow.sampler import FlowSampler

__all__ = ["FlowMatching", "FlowSample", "FlowSampler"]
