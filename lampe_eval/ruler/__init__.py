"""RULER: all thirteen tasks, generated natively to an exact length with the tokenizer under test.

shelf = Shelf(tokenizer, documents)
sample = build("vt", card, Recipe(shelf, length=131072), index=0)
prompt = [*sample.before, *sample.ids, *sample.after]
"""

from lampe_eval.ruler.ruler_cards import RulerCard
from lampe_eval.ruler.ruler_samples import RulerSample, build_sample
from lampe_eval.ruler.sample_spec import SampleSpec
from lampe_eval.ruler.shared_corpora import SharedCorpora

__all__ = ["RulerCard", "RulerSample", "SampleSpec", "SharedCorpora", "build_sample"]
