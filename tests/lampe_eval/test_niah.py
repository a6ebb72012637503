"""Needle samples: exact length, reproducible draws, all depths under any limit, any haystack."""

import copy
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerBase

from lampe_eval.benches import bench_tasks as all_tasks
from lampe_eval.benches import find_tasks, niah_original
from lampe_eval.benches.bench import Prompt, SampleRequest
from lampe_eval.benches.niah import Niah
from lampe_eval.errors import UserError
from lampe_eval.prompts.tokenization import encode, first_tokens
from lampe_eval.texts.sentence_ends import SentenceEnds
from tests.fixtures import package, pin
from tests.parity.data import DATA

BENCH = Niah()
FULL_STOPS = SentenceEnds(frozenset({ord(".")}), (), lambda ids: "".join(map(chr, ids)))
TASKS = [
    f"niah/{name}"
    for name in (
        *("single", "multikey", "multivalue", "multiquery", "phone", "multiphone"),
        *("grid", "passkey", "string"),
    )
]
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<me>{% endif %}"
)


@pytest.fixture
def tokenizer(pocket: tuple[object, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    return pocket[1]


def _samples(
    task: str,
    length: int,
    tokenizer: PreTrainedTokenizerBase,
    source: Path | None = None,
    limit: int = 5,
    seed: int = 0,
    protocol: str = "fair",
) -> list[Prompt]:
    (bench_task,) = find_tasks((task,))
    request = SampleRequest(tokenizer, length, limit, BENCH.protocol(protocol), seed, source)
    return list(BENCH.samples(bench_task, request))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [256, 777, 2048])
def test_prompt_and_answer_make_the_length(
    task: str, length: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    for sample in _samples(task, length, tokenizer):
        assert len(sample.ids) + sample.max_new_tokens == length
        text = tokenizer.decode(list(sample.ids))
        assert all(
            text.count(value) == (2 if task == "niah/passkey" else 1) for value in sample.references
        )


def test_needles_lie_at_their_depth(tokenizer: PreTrainedTokenizerBase) -> None:
    for sample in _samples("niah/single", 2048, tokenizer):
        text = str(tokenizer.decode(list(sample.ids)))
        assert 100 * text.index(sample.references[0]) / len(text) == pytest.approx(
            sample.meta["depth"], abs=5
        )


def test_samples_do_not_depend_on_how_many_are_drawn(tokenizer: PreTrainedTokenizerBase) -> None:
    few, many = (_samples("niah/multikey", 512, tokenizer, limit=limit) for limit in (3, 7))
    assert many[:3] == few
    assert len({sample.id for sample in many}) == 7
    assert _samples("niah/multikey", 512, tokenizer, seed=1)[0].ids != few[0].ids


@pytest.mark.parametrize(
    ("task", "limit", "depths"),
    [
        ("niah/single", 1, {0}),
        ("niah/single", 2, {0, 100}),
        ("niah/grid", 3, {0, 50, 100}),
        ("niah/grid", 5, {0, 20, 50, 70, 100}),
        ("niah/single", 5, {0, 25, 50, 75, 100}),
    ],
)
def test_any_limit_is_spread_over_the_depths(
    tokenizer: PreTrainedTokenizerBase, task: str, limit: int, depths: set[float]
) -> None:
    assert {
        sample.meta["depth"] for sample in _samples(task, 512, tokenizer, limit=limit)
    } == depths


def test_whole_cycles_have_the_samples_of_their_indices(tokenizer: PreTrainedTokenizerBase) -> None:
    samples = _samples("niah/single", 512, tokenizer, limit=10)
    depths = (0, 25, 50, 75, 100)
    expected = {f"512/{depths[index % 5]}/{index}" for index in range(10)}
    assert {sample.id for sample in samples} == expected


def test_any_text_can_be_the_haystack(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "a.txt").write_text("Wölfe heulen. Es schneit! " * 20)
    (tmp_path / "b.md").write_text("Quartz vexes jumbo dwarfs? ")
    for source in (tmp_path, tmp_path / "a.txt"):
        (sample, *_) = _samples("niah/single", 1024, tokenizer, source)
        text = str(tokenizer.decode(list(sample.ids)))
        assert "Wölfe heulen." in text
        assert len(sample.ids) == 1024 - 16


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "no such file"),
        ("empty.txt", b"  ", "no text in it"),
        ("binary.txt", b"\xff\xfe\x00\x01", "UTF-8"),
    ],
)
def test_an_unreadable_haystack_is_reported(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        _samples("niah/single", 512, tokenizer, tmp_path / name)


def test_an_empty_folder_is_reported(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(
        UserError,
        match=r"no text .*\.txt, \.md, \.parquet, \.jsonl or \.jsonl\.gz",
    ):
        _samples("niah/single", 512, tokenizer, tmp_path)


def test_a_length_no_prompt_can_have_says_what_is_needed(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    with pytest.raises(UserError, match=r"length 20: .*--lengths"):
        _samples("niah/multikey", 20, tokenizer)


def test_a_grid_has_eleven_depths_and_runs_only_by_name() -> None:
    cards = {task.name: task.card for task in all_tasks("niah")}
    assert len(cards["grid"].depths) == 11 and cards["grid"].samples % 11 == 0
    by_name = {"grid", "multiphone", "passkey", "phone", "string"}
    assert {name for name, card in cards.items() if not card.default} == by_name
    assert cards["grid"].spec == cards["single"].spec


def test_a_pass_key_lies_in_filler_whatever_the_source(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    (tmp_path / "a.txt").write_text("Quartz vexes jumbo dwarfs. ")
    (sample, *_) = _samples("niah/passkey", 777, tokenizer, tmp_path)
    text = str(tokenizer.decode(list(sample.ids)))
    assert text.count("A gull circles over the pier.") > 5
    assert "Quartz" not in text
    assert text.endswith("The pass key is") and len(sample.references[0]) == 5


def test_four_needles_lie_in_four_quarters(tokenizer: PreTrainedTokenizerBase) -> None:
    samples = _samples("niah/string", 2048, tokenizer, limit=4)
    for sample in samples:
        text = str(tokenizer.decode(list(sample.ids)))
        places = [text.index(value) / len(text) for value in sample.references]
        assert all(
            part / 4 - 0.07 < place < (part + 1) / 4 + 0.03 for part, place in enumerate(places)
        )
        assert sample.extras == {"required_values": 2} and not sample.meta
    assert len({tuple(sample.ids) for sample in samples}) == 4


@pytest.mark.parametrize(
    ("prediction", "score"), [("111111", 0), ("x 111111, 444444", 1), ("111111 222222 333333", 1)]
)
def test_two_of_four_are_enough(prediction: str, score: float) -> None:
    values = ["111111", "222222", "333333", "444444"]
    row = {"prediction": prediction, "references": values, "extras": {"required_values": 2}}
    assert BENCH.score("string", row, BENCH.protocol("fair")) == score


NEEDLE, QUESTION = (
    "\nThe loveliest walk in Lisbon leads past orange trees down to the harbour.\n",
    "What is the loveliest walk in Lisbon?",
)
RUN = f"""
class CommandArgs:
    name: str = "x"
    needle: Optional[str] = {NEEDLE!r}
    retrieval_question: Optional[str] = {QUESTION!r}
    needles: list[str] = field(default_factory=lambda: ["no"])
"""
PROVIDER = '''
class Model:
    def generate_prompt(self, context, question):
        """Puts a prompt together."""
        return [{"role": "system", "content": "Say little."}, {"role": "user", "content": context},
                {"role": "user", "content": f"{question} Say nothing else."}]
'''


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write our own needle and question to upstream's files, and two essays of two sentences."""
    folder = package(tmp_path, monkeypatch)
    pin(folder, "niah", "run.py", RUN.encode())
    pin(folder, "niah", "openai.py", PROVIDER.encode())
    essays = tmp_path / "essays-of-our-own"
    essays.mkdir()
    (essays / "a.txt").write_text("The lamp is on. It rains outside. ")
    (essays / "b.txt").write_text("Nobody knows the way. Stay here. ")
    return essays


@pytest.mark.parametrize("task", ["niah/single", "niah/grid"])
def test_the_original_wording_in_exactly_the_length(
    upstream: Path, tokenizer: PreTrainedTokenizerBase, task: str
) -> None:
    """Expect chat template, haystack and question, and every depth once whatever the limit."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = CHAT
    samples = _samples(task, 512, tokenizer, upstream, limit=99, protocol="fair:prompts=official")
    assert (
        len({sample.id for sample in samples})
        == len(samples)
        == {"niah/single": 5, "niah/grid": 11}[task]
    )
    for sample in samples:
        text = str(tokenizer.decode(list(sample.ids), skip_special_tokens=True))
        assert len(sample.ids) + sample.max_new_tokens == 512
        context = text.partition("<user>")[2].partition(QUESTION)[0]
        assert context.count(NEEDLE.strip()) == 1
        assert 100 * context.index(NEEDLE) / (len(context) - len(NEEDLE)) == pytest.approx(
            sample.meta["depth"], abs=5
        )
        assert "Say little." in text.partition("<user>")[0]
        assert text.endswith(f"\n\n{QUESTION} Say nothing else.</><me>")
        assert sample.references == ["leads", "past", "orange", "trees", "down", "harbour"]


def test_essays_are_the_haystack_by_default_and_by_name(
    upstream: Path,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Essays follow each other without a separator, in the order of the card."""
    card, data = (
        tmp_path / "package" / "tasks" / "niah" / "assets.yaml",
        tmp_path / "package" / "data",
    )
    listed = yaml.safe_load(card.read_text())
    essays = listed["sources"][0]["files"][-1]
    whole = b"".join((upstream / name).read_bytes() for name in ("b.txt", "a.txt"))
    essays |= {
        "parts": ["b.txt", "a.txt"],
        "bytes": len(whole),
        "sha256": sha256(whole).hexdigest(),
    }
    card.write_text(yaml.safe_dump(listed))
    shutil.copytree(upstream, data / "niah" / essays["path"])
    monkeypatch.delenv("LAMPE_EVAL_DATA")
    (task,) = find_tasks(("niah/single",))
    for protocol, source in (
        ("official", None),
        ("official", Path("essays")),
        ("fair", Path("essays")),
    ):
        request = SampleRequest(
            tokenizer, 512, 1, BENCH.protocol(protocol), source=source, data_dir=data
        )
        (sample,) = BENCH.samples(task, request)
        text = str(tokenizer.decode(list(sample.ids)))
        joint = (
            "Stay here. The lamp is on."
            if protocol == "official"
            else "Stay here. \nThe lamp is on."
        )
        assert joint in text and text.index("Nobody knows") < text.index("The lamp is on.")


def test_a_limit_holds_for_the_original_wording(
    upstream: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    samples = _samples("niah/grid", 512, tokenizer, upstream, limit=3, protocol="official")
    assert [sample.meta["depth"] for sample in samples] == [0, 100, 50]


def test_the_original_protocol_keeps_200_tokens_free(
    upstream: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Give needle and haystack L - 200 tokens; the rest of the prompt fits into the remainder."""
    around = sum(
        len(encode(tokenizer, text))
        for text in ("Say little.\n\n", f"\n\n{QUESTION} Say nothing else.")
    )
    samples = _samples("niah/single", 640, tokenizer, upstream, protocol="official")
    assert len(samples) == 5
    for sample in samples:
        assert len(sample.ids) == 440 + around + len(first_tokens(tokenizer))
        assert len(sample.ids) + sample.max_new_tokens <= 640


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(0, "!ab.cd.ef"), (40, "ab.!cd.ef"), (74, "ab.!cd.ef"), (80, "ab.cd.!ef"), (99, "ab.cd.!ef")],
)
def test_the_original_needle_goes_back_to_a_full_stop(depth: float, expected: str) -> None:
    place = niah_original.needle_place(list(map(ord, "ab.cd.ef")), depth, FULL_STOPS)
    assert f"{'ab.cd.ef'[:place]}!{'ab.cd.ef'[place:]}" == expected


def test_the_original_needle_goes_to_the_very_end_at_100_percent() -> None:
    assert niah_original.needle_place([ord("."), 2, 3], 100, FULL_STOPS) == 3


def test_what_the_original_wording_has_and_needs() -> None:
    official = BENCH.protocol("official")
    cards = {task.name: task for task in all_tasks("niah")}
    assert [name for name, task in cards.items() if BENCH.has_task(task, official)] == [
        "single",
        "grid",
    ]
    assert all(BENCH.has_task(task, BENCH.protocol("fair")) for task in cards.values())
    assert BENCH.required_files(cards["single"], BENCH.protocol("fair")) == []
    assert BENCH.required_files(cards["grid"], official) == [
        "niah/run.py",
        "niah/openai.py",
        "niah/PaulGrahamEssays",
    ]


def test_keywords_are_recalled_in_any_case() -> None:
    row = {
        "prediction": "Orange Trees, harbour!",
        "references": ["orange", "trees", "down", "harbour"],
        "extras": {},
    }
    assert BENCH.score("single", row, BENCH.protocol("official")) == 0.75


def test_a_length_without_room_for_the_original_needle_is_reported(
    upstream: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(UserError, match="length 64 "):
        _samples("niah/single", 64, tokenizer, upstream, protocol="fair:prompts=official")


def test_missing_and_foreign_files_of_the_original_are_reported(
    upstream: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"niah/PaulGrahamEssays: .*lampe-eval data fetch"):
        _samples("niah/single", 512, tokenizer, protocol="official")
    pin(tmp_path / "package", "niah", "run.py", b"x = 1\n")
    with pytest.raises(UserError, match=r"run\.py: .*'CommandArgs'"):
        _samples("niah/single", 512, tokenizer, upstream, protocol="official")
    pin(tmp_path / "package", "niah", "run.py", b"<html>")
    with pytest.raises(UserError, match=r"run.py: .*Python source"):
        _samples("niah/single", 512, tokenizer, upstream, protocol="official")
    pin(
        tmp_path / "package",
        "niah",
        "openai.py",
        b"def generate_prompt():\n    return 'one sentence'\n",
    )
    with pytest.raises(UserError, match=r"openai\.py: .* 1 .*'generate_prompt'.* 2"):
        _samples("niah/single", 512, tokenizer, upstream, protocol="official")


ESSAYS = DATA / "ruler" / "PaulGrahamEssays.json"


@pytest.mark.skipif(not ESSAYS.is_file(), reason=f"no essays under {DATA}")
def test_the_original_needle_in_real_essays(
    upstream: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Read one JSON object with three megabytes of text; a needle follows a full stop."""
    (tmp_path / "essays.jsonl").symlink_to(ESSAYS)
    for sample in _samples(
        "niah/grid",
        8192,
        tokenizer,
        tmp_path / "essays.jsonl",
        11,
        protocol="fair:prompts=official",
    ):
        text = str(tokenizer.decode(list(sample.ids)))
        before = text.partition(NEEDLE.strip())[0]
        assert len(sample.ids) + sample.max_new_tokens == 8192
        assert sample.meta["depth"] in (0, 100) or before.rstrip().endswith(".")
        assert 100 * len(before) / len(text) == pytest.approx(sample.meta["depth"], abs=6)


@pytest.mark.skipif(not (DATA / "passkey").is_dir(), reason=f"no pass key files under {DATA}")
def test_real_rows_without_a_text_are_reported(tokenizer: PreTrainedTokenizerBase) -> None:
    """Read rows whose prompts are stored under another key."""
    with pytest.raises(UserError, match=r"passkey_examples.*:1: .*'text'"):
        _samples("niah/single", 512, tokenizer, DATA / "passkey")


@pytest.mark.parametrize("task", ["niah/single", "niah/multikey"])
def test_samples_share_the_haystack_of_a_text_and_no_pocket_text(
    task: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    source = tmp_path / "text.txt"
    source.write_text("A boat came in at noon. " * 500, encoding="utf-8")
    of_text = {sample.document_sha256 for sample in _samples(task, 512, tokenizer, source)}
    of_pocket = {sample.document_sha256 for sample in _samples(task, 512, tokenizer)}
    assert (len(of_text), len(of_pocket)) == (1, 5)
    assert all(of_text)
