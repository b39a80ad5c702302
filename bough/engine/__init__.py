"""The engine: requests in, tokens and text out, a step at a time."""

from bough.engine.config import EngineConfig
from bough.engine.engine import Engine
from bough.engine.llm import LLM
from bough.engine.outputs import RequestOutput, SampleOutput
from bough.engine.params import SamplingParams
from bough.engine.prompts import Prompt, TokenPrompt
from bough.engine.stats import EngineStats

__all__ = [
    "LLM",
    "Engine",
    "EngineConfig",
    "EngineStats",
    "Prompt",
    "RequestOutput",
    "SampleOutput",
    "SamplingParams",
    "TokenPrompt",
]
