"""Plans against golden matrices, and what every plan must hold."""

import itertools

import pytest
import torch

import lampe
from lampe.methods import METHODS, method_of
from lampe.positions import PairMap
from tests.lampe.matrices import DECODE, GOLDENS, LAMPE, OWN_PLANS, TOKENS_OF_POSITIONS, Golden

WINDOW = lampe.Geometry(window=256)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: f"{golden.method}-{golden.settings}")
def test_plan_equals_the_golden_matrix(golden: Golden) -> None:
    plan = method_of(golden.method, **golden.settings).encode(WINDOW, golden.length).plan
    matrix = plan.matrix(golden.length)
    for query, row in golden.rows.items():
        found = matrix[query, : query + 1].tolist()
        assert found == pytest.approx(row, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("length", TOKENS_OF_POSITIONS)
def test_adagrope_has_the_whole_positions_of_the_paper_where_they_begin(length: int) -> None:
    """Compare the floors of the last row with the paper's, which are the same for each query."""
    plan = method_of("adagrope", positions=16).encode(WINDOW, length).plan
    row = plan.matrix(length)[-1].flip(0)
    expected = torch.arange(16).repeat_interleave(torch.tensor(TOKENS_OF_POSITIONS[length]))
    assert torch.equal((row + 1e-9).floor(), expected.double())


@pytest.mark.parametrize(
    ("decode", "row"),
    [
        ("prompt", "9 9 8 7 7 6 6 6 5 5 5 4 4 3 2 1 0"),
        ("eager", "4 4 4 4 4 4 4 4 4 4 4 4 4 3 2 1 0"),
        ("flash", "0 4 5 6 7 8 9 10 11 12 13 14 15 3 2 1 0"),
    ],
)
def test_answers_of_self(decode: str, row: str) -> None:
    """Check the query after a prompt of 16; the flash rule has groups of one token for so few."""
    method = method_of("self", window_size=4, capacity=4, rate=1.0, decode=decode)
    plan = method.decode_plan(WINDOW, 16, 17) or method.encode(WINDOW, 16).plan
    positions = plan.relative(torch.tensor(16), torch.arange(17)).tolist()
    assert positions == [float(entry) for entry in row.split()]
    assert plan.largest(17) == max(positions)


@pytest.mark.parametrize("generated", DECODE)
def test_decode_continues_the_frozen_plan(generated: int) -> None:
    plan = method_of("lampe", **LAMPE, variant="paper").encode(WINDOW, 16).plan
    query = 15 + generated
    row = plan.relative(torch.tensor([query]), torch.arange(query + 1))
    assert row.tolist() == [float(entry) for entry in DECODE[generated].split()]


@pytest.mark.parametrize(
    "golden", OWN_PLANS, ids=lambda golden: f"{golden.method}-{golden.settings}"
)
def test_generated_tokens_with_plans_of_their_own(golden: Golden) -> None:
    method = method_of(golden.method, **golden.settings)
    for query, row in golden.rows.items():
        plan = method.decode_plan(WINDOW, golden.length, query + 1)
        assert plan is not None and plan.coverage_fault() is None
        positions = plan.relative(torch.tensor([query]), torch.arange(query + 1))
        assert positions.tolist() == pytest.approx(row, abs=1e-6)


@pytest.mark.parametrize("shift", ["integer", "fractional-prefill"])
def test_each_band_of_pairs_has_the_positions_of_its_group_size(shift: str) -> None:
    sizes, bands = (3, 1, 6), (20, 10, 34)
    settings = {"window_size": 10, "shift": shift}
    lists = {"group_sizes": "3/1/6", "bands": "20/10/34"}
    plan = method_of("dpe", **lists, **settings).encode(WINDOW, 90).plan
    assert plan.pair_stops == tuple(itertools.accumulate(bands))
    for size, stop in zip(sizes, plan.pair_stops, strict=True):
        expected = method_of("selfextend", group_size=size, **settings).encode(WINDOW, 90).plan
        ours = plan.of_pair(stop - 1).matrix(90).nan_to_num(-1)
        assert torch.equal(ours, expected.matrix(90).nan_to_num(-1))
    slowest = plan.of_pair(63)
    assert torch.equal(plan.matrix(90).tril(), slowest.matrix(90).tril())
    assert plan.largest(90) == slowest.largest(90)


def test_queries_have_the_plan_of_their_band() -> None:
    near, far = (lampe.PositionPlan((lampe.Region(0, None, name=name),)) for name in ("a", "b"))
    plan = lampe.IDENTITY_PLAN.then(4, near).then(9, far)
    names = [(start, stop, own.regions[0].name) for start, stop, own in plan.runs(2, 12)]
    assert names == [(2, 4, "plain"), (4, 9, "a"), (9, 12, "b")]
    assert plan.begin == 9
    assert [plan.of_query(query).regions[0].name for query in (3, 4, 8, 9)] == ["plain", *"aab"]
    hole = lampe.PositionPlan((lampe.Region(0, 3),))
    assert "queries before 4: " in str(hole.then(4, near).coverage_fault())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "length", [1, 2, 40, 63, 64, 65, 191, 192, 193, 255, 256, 257, 511, 700, 1023]
)
def test_every_causal_pair_is_covered_once(name: str, length: int) -> None:
    """Leave out the pairs that a sparse plan says it leaves out."""
    plan = method_of(name).encode(WINDOW, length).plan
    assert plan.coverage_fault() is None
    matrix = plan.matrix(length)
    covered = torch.ones(length, length, dtype=torch.bool).tril()
    if plan.visible:
        distance = torch.arange(length)[:, None] - torch.arange(length)
        covered &= (distance <= plan.visible.last) | (torch.arange(length) < plan.visible.first)
    assert torch.equal(~matrix.isnan(), covered)
    assert plan.largest(length) == pytest.approx(float(matrix[covered].max()))


@pytest.mark.parametrize(
    "name",
    [
        *("selfextend", "dca", "chunkllama", "rerope", "leaky-rerope", "lampe", "self", "adagrope"),
        *("dpe", "gali", "streaming-llm", "lm-infinite"),
    ],
)
@pytest.mark.parametrize("length", [256, 512, 1024, 4096, 16384])
def test_default_positions_stay_inside_the_window(name: str, length: int) -> None:
    assert method_of(name).encode(WINDOW, length).plan.largest(length) < WINDOW.window


@pytest.mark.parametrize(
    "method",
    [
        method_of("selfextend", group_size=1),
        method_of("leaky-rerope", factor=1),
        method_of("string", shift=20, local=20),
        method_of("lampe", mapping_length=100),
        method_of("dca", chunk_size=100, cap=120),
        method_of("rerope", window_size=100),
        method_of("self", capacity=2),
        method_of("adagrope", positions=100),
        method_of("streaming-llm", recent=99),
        method_of("lm-infinite", local=100),
        method_of("dpe", group_sizes="1/1"),
        method_of("dpe", group_sizes="2/8", window_size=100),
        method_of("gali", window=100),
    ],
    ids=lambda method: method.name,
)
def test_identity_limits_keep_true_distances(method: lampe.Method) -> None:
    index = torch.arange(100)
    matrix = method.encode(WINDOW, 100).plan.matrix(100)
    assert torch.equal(matrix.tril(), (index[:, None] - index).tril().double())


def test_coverage_fault_names_a_hole_a_double_and_an_end() -> None:
    hole = lampe.PositionPlan((lampe.Region(0, 3), lampe.Region(4, None)))
    double = lampe.PositionPlan((lampe.Region(0, 4), lampe.Region(3, None)))
    mixed = lampe.PositionPlan((lampe.Region(0, 4), lampe.Region(4, None, block=2)))
    assert "from 3 on" in str(hole.coverage_fault())
    assert "from 4 on" in str(double.coverage_fault())
    assert "from 3 on" in str(lampe.PositionPlan((lampe.Region(0, 3),)).coverage_fault())
    assert "different blocks" in str(mixed.coverage_fault())


def test_a_sparse_plan_may_leave_out_pairs_but_none_of_a_token_with_itself() -> None:
    near, sinks = lampe.Region(0, 4), lampe.Region(7, None, until=2)
    assert lampe.PositionPlan((near, sinks), sparse=True).coverage_fault() is None
    assert lampe.PositionPlan((near,), sparse=True).coverage_fault() is None
    assert "from 2 on" in str(lampe.PositionPlan((near, sinks)).coverage_fault())
    beyond = lampe.PositionPlan((lampe.Region(1, None),), sparse=True)
    assert "from 0 on" in str(beyond.coverage_fault())
    without_self = lampe.PositionPlan((lampe.Region(0, None, until=2),), sparse=True)
    assert "from 2 on" in str(without_self.coverage_fault())
    twice = lampe.PositionPlan((near, lampe.Region(3, None, until=2)), sparse=True)
    assert "from 4 on" in str(twice.coverage_fault())


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([lampe.Region(0, 4)], (0, 3)),
        ([lampe.Region(0, 4), lampe.Region(4, None, until=2)], (2, 3)),
        ([lampe.Region(0, 2, block=8), lampe.Region(5, 7, block=8)], (0, 55)),
        ([lampe.Region(0, 4), lampe.Region(9, None)], None),
    ],
)
def test_visible_tokens_are_all_that_a_query_sees(
    regions: list[lampe.Region], expected: tuple[int, int] | None
) -> None:
    visible = lampe.PositionPlan(tuple(regions), sparse=True).visible
    assert (visible and (visible.first, visible.last)) == expected
    assert lampe.PositionPlan(tuple(regions)).visible is None


def test_positions_of_sinks_that_a_local_layer_no_longer_sees_still_count() -> None:
    plan = method_of("lm-infinite", local=50, limit=300).encode(WINDOW, 1000).plan
    assert plan.within(lampe.positions.LocalWindow(400)).largest(1000) == 300


@pytest.mark.parametrize("block", [1, 3])
def test_the_verdict_on_coverage_agrees_with_counting(block: int) -> None:
    edges = [(0, 2), (2, 5), (5, None), (0, None), (1, 5)]
    index = torch.arange(20)
    for first, second in itertools.product(edges, edges):
        plan = lampe.PositionPlan(
            (lampe.Region(*first, block=block), lampe.Region(*second, block=block))
        )
        counts = sum(region.owns(index[:, None], index[None, :]).int() for region in plan)
        once = torch.equal(torch.as_tensor(counts), torch.ones(20, 20).tril().int())
        assert once is (plan.coverage_fault() is None)


def test_map_floors_exactly_where_floats_do_not() -> None:
    from fractions import Fraction

    third = lampe.PositionMap(scale=Fraction(1, 3), floor=True)
    index = torch.tensor([3 * 10**15, 3 * 10**15 - 1])
    assert third(index).tolist() == [1e15, 1e15 - 1]


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        (lampe.PositionMap(), "x"),
        (lampe.PositionMap(offset=-3), "x - 3"),
        (lampe.PositionMap(modulo=6, offset=6, cap=9), "min(9, (x mod 6) + 6)"),
        (
            PairMap.of([(2, lampe.PositionMap(offset=1)), (1, lampe.PositionMap())]),
            "2 pairs: x + 1; 1 pairs: x",
        ),
        (PairMap.of([(2, lampe.PositionMap()), (1, lampe.PositionMap())]), "x"),
    ],
)
def test_map_reads_as_a_formula(positions: lampe.PositionMap, text: str) -> None:
    assert str(positions) == text
