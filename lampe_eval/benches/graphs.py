"""Directed graphs of named nodes, which a prompt lists edge by edge, and questions about them.

Every node has edges to two other nodes, drawn from all of them: no edge leads to its own node, and
none is there twice. Edges stand in the order of their sources. The names are six hexadecimal
digits, so that none is inside another one. Names and draws come from random numbers that are the
same for every number of nodes, so that a graph is drawn anew for each number in no time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from random import Random

import numpy as np

from lampe_eval.ruler.length_fitting import PromptLayout, ScalableSample
from lampe_eval.ruler.piecewise_tokenizer import PieceRun, PieceTable, PiecewiseTokenizer
from lampe_eval.ruler.seeded_random import Indices, distinct_strings, permutation

HEX_DIGITS = "0123456789abcdef"
NAME_LETTERS = 6
OUT_DEGREE = 2
MAX_PARENTS = 6
"""Most nodes that a question for parents may have as its answer."""

POOL_NAMES = 16_384
POOL_TOKENS = 131_072
"""Tokens for which so many names are enough: a node has two lines of at least four tokens."""


def pool_size(length: int) -> int:
    """Return the number of names that are drawn from, the same for all usual lengths."""
    return POOL_NAMES * -(-length // POOL_TOKENS)


@dataclass(frozen=True, eq=False)
class Graph:
    """Directed graph of numbered nodes.

    Attributes:
        targets: for each node the nodes that its edges lead to; shape (nodes, edges of a node).
    """

    targets: Indices

    @classmethod
    def from_numbers(cls, numbers: Indices, nodes: int) -> "Graph":
        """Return a graph in which every node has edges to two different other nodes.

        Args:
            numbers: random numbers, of which each row gives the targets of a node; shape (at least
                `nodes`, 2).
            nodes: number of nodes, at least 3.
        """
        first = 1 + numbers[:nodes, 0] % (nodes - 1)
        second = 1 + numbers[:nodes, 1] % (nodes - 2)
        second += second >= first
        sources = np.arange(nodes)
        return cls(np.stack([sources + first, sources + second], axis=1) % nodes)

    def parents(self, node: int) -> list[int]:
        """Return the other nodes with an edge to a node."""
        sources = np.flatnonzero((self.targets == node).any(axis=1)).tolist()
        return [source for source in sources if source != node]

    def at_distance(self, node: int, steps: int) -> list[list[int]]:
        """Return the nodes whose shortest path from a node has 0, 1, ... and `steps` edges."""
        layers = [[node]]
        seen = {node}
        for _ in range(steps):
            reached = set(self.targets[layers[-1]].ravel().tolist()) - seen
            seen |= reached
            layers.append(sorted(reached))
        return layers


@dataclass(frozen=True)
class GraphQuestion:
    """Kind of question about a node.

    Attributes:
        text: the question, with `{node}`.
        steps: length of the paths to the nodes that it asks for; 0 to ask for the node's parents.
    """

    text: str
    steps: int

    def answer(self, graph: Graph, node: int) -> list[int]:
        """Return the nodes that the question asks for."""
        return graph.at_distance(node, self.steps)[-1] if self.steps else graph.parents(node)

    def first_line(self, graph: Graph, node: int) -> int:
        """Return the first node whose edges the answer takes."""
        if not self.steps:
            return min(graph.parents(node))
        return min(min(layer) for layer in graph.at_distance(node, self.steps - 1) if layer)

    def is_answerable(self, nodes: int) -> bool:
        """Return whether an answer of so many nodes is neither empty nor unusually small or large.

        Scorers disagree about empty answers, and a model that says nothing gives them.
        """
        if not self.steps:
            return 1 <= nodes <= MAX_PARENTS
        least: int = OUT_DEGREE**self.steps // 2
        return nodes >= least

    def ask(self, graph: Graph, rng: Random) -> int:
        """Return the node that is asked about: the first answerable one in random order."""
        order = permutation(rng, len(graph.targets)).tolist()
        for node in order:
            if self.is_answerable(len(self.answer(graph, node))):
                return int(node)
        # In a graph of few nodes paths may meet so often that no answer is large enough.
        return int(max(order, key=lambda node: len(self.answer(graph, node))))


@dataclass(frozen=True, eq=False)
class NameTable:
    """Names of nodes as pieces of edges: names at the start of a line, then names at its end.

    Attributes:
        names: the names.
        pieces: table of the pieces.
    """

    names: Sequence[str]
    pieces: PieceTable

    @classmethod
    def draw(cls, tokenizer: PiecewiseTokenizer, seed: int, count: int) -> "NameTable":
        """Return `count` different names, the first of which a larger number has as well."""
        names = distinct_strings(Random(f"graph names {seed}"), HEX_DIGITS, NAME_LETTERS, count)
        ends = [f" -> {name}\n" for name in names]
        return cls(names, tokenizer.build_table([*names, *ends]))

    def edges(self, graph: Graph, chosen: Indices) -> PieceRun:
        """Return the lines of a graph whose node i has the name with the number `chosen[i]`."""
        sources = np.repeat(chosen[: len(graph.targets)], graph.targets.shape[1])
        ends = len(self.names) + chosen[graph.targets.ravel()]
        return PieceRun(self.pieces, np.stack([sources, ends], axis=1).ravel())


@dataclass(frozen=True, eq=False)
class GraphSample:
    """Question about a graph whose number of nodes is open.

    Attributes:
        question: the kind of its question.
        names: names that its nodes may have.
        seed: what its random numbers depend on.
        instruction: text before the edges.
        least_nodes: smallest number of nodes.
    """

    question: GraphQuestion
    names: NameTable
    seed: str
    instruction: str
    least_nodes: int

    @cached_property
    def order(self) -> Indices:
        """Return the numbers of the names in the order of the nodes that have them."""
        return permutation(self._rng("names"), len(self.names.names))

    @cached_property
    def _numbers(self) -> Indices:
        words = self._rng("edges").randbytes(8 * OUT_DEGREE * len(self.names.names))
        # "<u8" fixes the byte order of every machine; the shift keeps the numbers positive.
        numbers = (np.frombuffer(words, dtype="<u8") >> np.uint64(1)).astype(np.int64)
        return numbers.reshape(-1, OUT_DEGREE)

    def graph(self, nodes: int) -> Graph:
        """Return the graph of a number of nodes."""
        return Graph.from_numbers(self._numbers, nodes)

    def node(self, nodes: int) -> int:
        """Return the node that the question is about in the graph of a number of nodes."""
        return self.question.ask(self.graph(nodes), self._rng(f"node {nodes}"))

    def answer(self, nodes: int) -> list[str]:
        """Return the names that answer the question in the graph of a number of nodes."""
        answer = self.question.answer(self.graph(nodes), self.node(nodes))
        return [self._name(node) for node in answer]

    def scalable(self, tokenizer: PiecewiseTokenizer) -> ScalableSample:
        """Return the sample as one whose units are nodes."""
        some_question = self.question.text.format(node=self._name(0))
        fixed_tokens = len(tokenizer.encode_beginning(self.instruction))
        fixed_tokens += tokenizer.count_tokens(some_question)

        def estimate_tokens(nodes: int) -> int:
            run = self.names.edges(self.graph(nodes), self.order)
            return fixed_tokens + int(run.table.sizes[run.order].sum())

        return ScalableSample(
            # Question and answer depend on the number of nodes.
            outputs=(),
            answer_prefix="",
            min_units=self.least_nodes,
            max_units=len(self.names.names),
            estimate_tokens=estimate_tokens,
            layout=self._layout,
        )

    def _layout(self, nodes: int) -> PromptLayout:
        graph, node = self.graph(nodes), self.node(nodes)
        depth = 100 * self.question.first_line(graph, node) / nodes
        return PromptLayout(
            [self.instruction, self.names.edges(graph, self.order)],
            [self.question.text.format(node=self._name(node))],
            # Dots, because the beginning of a further edge would name a new node.
            continuation=repeat("."),
            closing="\n",
            meta={"depth": round(depth, 2), "nodes": nodes},
        )

    def _name(self, node: int) -> str:
        return self.names.names[int(self.order[node])]

    def _rng(self, purpose: str) -> Random:
        return Random(f"graph {purpose} {self.seed}")
