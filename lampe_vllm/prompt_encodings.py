"""Encodings of the prompts that an engine has at a time, for each kind of layer."""

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from lampe.attention.rotation import RotaryTables, cos_sin
from lampe.encoding import Encoding
from lampe.geometry import Geometry
from lampe.methods import Method
from lampe.patching.layer_encodings import require_coverage
from lampe.patching.layer_probe import fits_window
from lampe.positions import LocalWindow, PositionPlan
from lampe_vllm.rotary_tables import RotaryTable, RotaryTableArray

STEP_QUERIES = 64
"""Answer tokens whose keys and rotations are computed at a time."""
STEP_REGIONS = 4096
"""Regions, in all queries that are computed at a time, at most."""
MAX_STEPS = 8
"""Stretches of so many answer tokens that are remembered for prompts of one length."""
IDLE_PROMPTS = 16
"""Prompts that are remembered besides those of a batch, by length, for each kind of layer."""

KeyRun = tuple[int, int, RotaryTable]
"""First key, key after the last, and the table of their rotations."""


@dataclasses.dataclass(frozen=True, eq=False)
class QuerySteps:
    """Queries of consecutive tokens, each of which attends alone.

    Attributes:
        begin: index of the first token.
        runs: the keys of each query, one run for each region in which it has any.
        rotations: cos and sin ``[runs, 2 P]`` float32 of each query in these regions.
        scales: log-n scale of each query.
    """

    begin: int
    runs: Sequence[Sequence[KeyRun]]
    rotations: Sequence[np.ndarray]
    scales: Sequence[float]

    @classmethod
    def of(
        cls, encoding: Encoding, begin: int, count: int, tables: RotaryTableArray
    ) -> "QuerySteps":
        """Return the queries of the tokens from ``begin`` on under an encoding."""
        index = torch.arange(begin, begin + count)
        regions = list(encoding.plan)
        spans = [region.span(index) for region in regions]
        firsts = [first.tolist() for first, _ in spans]
        lasts = [last.tolist() for _, last in spans]
        rotations = np.empty((count, len(regions), tables.array.shape[1]), np.float32)
        for number, region in enumerate(regions):
            parts = cos_sin(region.query, encoding, index, encoding.logit_factor)
            rotations[:, number] = torch.cat(parts, dim=1).numpy()
        key_tables = [tables.table(region.key, encoding, begin + count) for region in regions]
        scale = encoding.attention_factor.query_scale(index)
        runs, rotated = [], []
        for query in range(count):
            own = [n for n in range(len(regions)) if firsts[n][query] <= lasts[n][query]]
            runs.append([(firsts[n][query], lasts[n][query] + 1, key_tables[n]) for n in own])
            rotated.append(rotations[query, own])
        scales = [1.0] * count if scale is None else scale.tolist()
        return cls(begin, runs, rotated, scales)


class PromptEncoding:
    """Encoding of a prompt and of the tokens of its answer, in one kind of layer.

    Attributes:
        encoding: that of the prompt.
        tables: cos and sin for reading the prompt.
    """

    def __init__(
        self, encodings: "PromptEncodings", local: LocalWindow | None, length: int
    ) -> None:
        self._encodings, self._local, self._length = encodings, local, length
        self.encoding = encodings.encode(local, length)
        self.tables = RotaryTables()
        self.has_token_plans = self._token_plan(length + 1) is not None
        self._steps: OrderedDict[int, QuerySteps] = OrderedDict()

    def at(self, stop: int) -> Encoding:
        """Return the encoding of the token before ``stop``, and of those of a prompt before it."""
        plan = self._token_plan(stop) if stop > self._length and self.has_token_plans else None
        return self.encoding if plan is None else dataclasses.replace(self.encoding, plan=plan)

    def of_token(self, index: int) -> Encoding:
        """Return the encoding of a token that attends alone."""
        encoding = self.at(index + 1)
        if index >= encoding.plan.begin:
            return encoding
        return dataclasses.replace(encoding, plan=encoding.plan.of_query(index))

    def steps(self, index: int) -> QuerySteps:
        """Return queries among which the token with this index is."""
        count = 1
        if not self.has_token_plans and not self.encoding.plan.earlier:
            count = max(1, min(STEP_QUERIES, STEP_REGIONS // len(self.encoding.plan.regions)))
        begin = index - index % count
        if begin not in self._steps:
            # The prompt has been read, and the tables for that may be large.
            self.tables.clear()
            steps = QuerySteps.of(self.of_token(index), begin, count, self._encodings.tables)
            self._steps[begin] = steps
        self._steps.move_to_end(begin)
        if len(self._steps) > MAX_STEPS:
            self._steps.popitem(last=False)
        return self._steps[begin]

    def _token_plan(self, stop: int) -> PositionPlan | None:
        return self._encodings.token_plan(self._local, self._length, stop)


class PromptEncodings:
    """Encodings of a method on a model, by the length of the prompt.

    Attributes:
        tables: cos and sin of keys, for single queries.
    """

    def __init__(self, method: Method, geometry: Geometry) -> None:
        self.method, self.geometry = method, geometry
        self.tables = RotaryTableArray(geometry.dim // 2)
        self._prompts: defaultdict[LocalWindow | None, OrderedDict[int, PromptEncoding]]
        self._prompts = defaultdict(OrderedDict)

    def prompts(self, local: LocalWindow | None, lengths: Sequence[int]) -> list[PromptEncoding]:
        """Return the encodings of a batch of prompts.

        Args:
            local: tokens that the layer attends to; None for all.
            lengths: tokens of each prompt.
        """
        prompts = self._prompts[local]
        for length in lengths:
            if length not in prompts:
                prompts[length] = PromptEncoding(self, local, length)
            prompts.move_to_end(length)
        batch = [prompts[length] for length in lengths]
        # Tables may be large: two float32 numbers for each token and pair, for each map.
        while len(prompts) > len(lengths) + IDLE_PROMPTS:
            prompts.popitem(last=False)
        return batch

    def encode(self, local: LocalWindow | None, length: int) -> Encoding:
        """Return the encoding of a prompt; layers within the window keep true distances."""
        if fits_window(local, self.geometry.window):
            encoding = Encoding(self.geometry.rope(length))
        else:
            encoding = self.method.encode(self.geometry, length)
            require_coverage(self.method, encoding.plan)
        return dataclasses.replace(encoding, plan=encoding.plan.within(local))

    def token_plan(self, local: LocalWindow | None, length: int, stop: int) -> PositionPlan | None:
        """Return the plan of a generated token; None where the prompt's goes on."""
        if fits_window(local, self.geometry.window):
            return None
        plan = self.method.decode_plan(self.geometry, length, stop)
        return None if plan is None else plan.within(local)
