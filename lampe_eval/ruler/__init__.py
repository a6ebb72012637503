"""RULER: all thirteen tasks, generated natively to an exact length with the tokenizer under test.

shelf = Shelf(tokenizer, documents)
sample = build("vt", card, Recipe(shelf, length=131072), index=0)
prompt = [*sample.before, *sample.ids, *sample.after]
"""

from lampe_eval.ruler.build import Built, build
from lampe_eval.ruler.cards import RulerCard
from lampe_eval.ruler.recipe import Recipe
from lampe_eval.ruler.shelf import Shelf

__all__ = ["Built", "Recipe", "RulerCard", "Shelf", "build"]
