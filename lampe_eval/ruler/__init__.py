"""RULER: all thirteen tasks, generated to an exact length with the tokenizer under test.

corpora = SharedCorpora(tokenizer, documents)
sample = build_sample("vt", card, SampleSpec(corpora, length=131072), index=0)
prompt = [*sample.before, *sample.ids, *sample.after]
"""

from lampe_eval.ruler.ruler_cards import RulerCard
from lampe_eval.ruler.ruler_samples import RulerSample, build_sample
from lampe_eval.ruler.sample_spec import SampleSpec
from lampe_eval.ruler.shared_corpora import SharedCorpora

__all__ = ["RulerCard", "RulerSample", "SampleSpec", "SharedCorpora", "build_sample"]
