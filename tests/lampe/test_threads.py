"""Patched models called from several threads at once, and layers that backward runs again."""

import contextlib
import copy
import gc
import pickle
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, LlamaForCausalLM, StaticCache

import lampe
from lampe import Encoding, Rope
from lampe.attention import AttentionInputs, BackendChoice, BackendDispatcher
from lampe.attention.rotation import RotaryTables
from lampe.patching.forward_layout import ForwardLayout
from lampe.patching.prompt_boundary import PromptTracker
from tests.lampe.tiny import llama, random_ids

THREADS = 4
LENGTHS = (150, 90, 201, 70)
METHODS = ("lampe", "yarn", "selfextend", "dynamic-ntk", "original")
ANSWER = 12


@pytest.fixture
def model() -> LlamaForCausalLM:
    return llama()


@pytest.fixture(autouse=True)
def ignore_position_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lampe.PositionWarning)
        yield


def _in_threads(answer: Callable[[Tensor], Tensor], prompts: list[Tensor]) -> list[Tensor]:
    """Return the answers to prompts that as many threads ask for at the same time."""
    barrier = threading.Barrier(len(prompts))

    def answer_together(prompt: Tensor) -> Tensor:
        barrier.wait()
        with torch.no_grad():
            return answer(prompt)

    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(answer_together, prompts))


def _generate(model: LlamaForCausalLM, prompt: Tensor, cache: Cache | None = None) -> Tensor:
    """Return the logits of a greedy answer, ``[ANSWER, vocabulary]``."""
    out = model.generate(  # type: ignore[operator]
        prompt, max_new_tokens=ANSWER, do_sample=False, output_logits=True,
        return_dict_in_generate=True, past_key_values=cache,
    )  # fmt: skip
    return torch.cat(out.logits)


def _step_by_step(model: LlamaForCausalLM, prompt: Tensor) -> Tensor:
    """Return the logits of the prompt's end and of fixed answer tokens, by forward calls."""
    cache = DynamicCache()
    logits = [model(prompt, past_key_values=cache, use_cache=True).logits[:, -1]]
    for token in prompt[0, :ANSWER]:
        logits.append(model(token[None, None], past_key_values=cache).logits[:, -1])
    return torch.cat(logits)


@pytest.mark.matrix
@pytest.mark.parametrize("method", lampe.METHODS)
def test_threads_that_generate_get_the_answers_of_one_thread(
    model: LlamaForCausalLM, method: str
) -> None:
    prompts = [random_ids(length) for length in LENGTHS]
    with lampe.patch(model, method):
        with torch.no_grad():
            expected = [_generate(model, prompt) for prompt in prompts]
        together = _in_threads(lambda ids: _generate(model, ids), prompts)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_threads_with_forward_calls_of_their_own_get_the_logits_of_one_thread(
    model: LlamaForCausalLM, method: str
) -> None:
    prompts = [random_ids(length) for length in LENGTHS]
    with lampe.patch(model, method), torch.no_grad():
        expected = [_step_by_step(model, prompt) for prompt in prompts]
        together = _in_threads(lambda ids: _step_by_step(model, ids), prompts)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)


def test_threads_with_growing_caches_get_the_answers_of_one_thread(
    model: LlamaForCausalLM,
) -> None:
    prompts = [random_ids(length) for length in LENGTHS]
    answer = lambda ids: _generate(model, ids, lampe.growing_cache(model))  # noqa: E731
    with lampe.patch(model, "lampe"), torch.no_grad():
        expected = [answer(prompt) for prompt in prompts]
        together = _in_threads(answer, prompts)
    torch.testing.assert_close(together, expected, atol=1e-4, rtol=0)


def test_a_length_is_stated_for_the_calling_thread_only(model: LlamaForCausalLM) -> None:
    ids = random_ids(90)
    with lampe.patch(model, "lampe") as handle, torch.no_grad():
        expected = model(ids).logits
        with handle.prompt(300):
            assert handle.stated_length == 300
            assert not torch.equal(model(ids).logits, expected)
            (other,) = _in_threads(lambda prompt: model(prompt).logits, [ids])
    torch.testing.assert_close(other, expected)


def _read(model: LlamaForCausalLM, ids: Tensor, cache: Cache) -> Cache:
    """Return the cache after a prompt."""
    model(ids, past_key_values=cache, use_cache=True)
    return cache


def _steps(model: LlamaForCausalLM, tokens: Tensor, cache: Cache) -> Tensor:
    """Return the logits of fixed answer tokens, ``[tokens, vocabulary]``."""
    with torch.no_grad():
        steps = [model(token[None, None], past_key_values=cache).logits[0] for token in tokens[0]]
    return torch.cat(steps)


CACHES: dict[str, Callable[[LlamaForCausalLM], Cache]] = {
    "dynamic": lambda model: DynamicCache(),
    "static": lambda model: StaticCache(config=model.config, max_cache_len=400),
    "growing": lampe.growing_cache,
}


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("second", ["this thread", "another thread"])
def test_an_answer_goes_on_from_its_cache_whatever_its_thread_read_since(
    model: LlamaForCausalLM, kind: str, second: str
) -> None:
    """Threads of a pool may have read the prompt of another answer last."""
    long, short, tokens = random_ids(300), random_ids(90), random_ids(3)
    new_cache = CACHES[kind]
    with lampe.patch(model, "lampe", check=False), torch.no_grad():
        expected = _steps(model, tokens, _read(model, long, new_cache(model)))
        cache = _read(model, long, new_cache(model))

        def answer_after_another_prompt(ids: Tensor) -> Tensor:
            _read(model, ids, new_cache(model))
            return _steps(model, tokens, cache)

        if second == "this thread":
            ours = answer_after_another_prompt(short)
        else:
            (ours,) = _in_threads(answer_after_another_prompt, [short])
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_two_answers_may_alternate_and_one_outgrow_the_prompt_of_the_other(
    model: LlamaForCausalLM,
) -> None:
    prompts, tokens = [random_ids(100), random_ids(90)], random_ids(24)
    with lampe.patch(model, "lampe", check=False), torch.no_grad():
        expected = [
            _steps(model, tokens, _read(model, prompt, DynamicCache())) for prompt in prompts
        ]
        caches = [_read(model, prompt, DynamicCache()) for prompt in prompts]
        steps: list[list[Tensor]] = [[], []]
        for token in tokens.T:
            for cache, logits in zip(caches, steps, strict=True):
                logits.append(_steps(model, token[None], cache))
    ours = [torch.cat(logits) for logits in steps]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


CACHE_CHANGES: dict[str, Callable[[Cache], Cache]] = {
    "copied": copy.deepcopy,
    "copied shallowly": copy.copy,
    "reordered": lambda cache: (cache.reorder_cache(torch.tensor([0])), cache)[1],
    "cropped": lambda cache: (cache.crop(-2), cache)[1],
    "pickled": lambda cache: pickle.loads(pickle.dumps(cache)),
}


@pytest.mark.parametrize("change", CACHE_CHANGES)
def test_a_cache_that_is_changed_keeps_the_end_of_its_prompt(
    model: LlamaForCausalLM, change: str
) -> None:
    ids, tokens = random_ids(150), random_ids(5)
    with lampe.patch(model, "lampe", check=False) as handle, torch.no_grad():
        caches = []
        for _ in range(2):
            cache = _read(model, ids, DynamicCache())
            _steps(model, tokens, cache)
            caches.append(CACHE_CHANGES[change](cache))
        _read(model, random_ids(90), DynamicCache())
        ours = _steps(model, tokens, caches[0])
        with handle.prompt(150):
            expected = _steps(model, tokens, caches[1])
    torch.testing.assert_close(ours, expected)


def test_a_token_whose_cache_is_not_known_is_refused_until_its_length_is_stated() -> None:
    """Models may keep their keys in an object that is no cache of transformers."""
    tracker, layout = PromptTracker(), ForwardLayout(90, 91, (range(91),))
    assert tracker.end_without_cache(layout) == 0
    with pytest.raises(lampe.UnsupportedModel, match=r"token 91 .* 0 tokens"):
        tracker.layout_with_end(layout, None)
    with tracker.state_length(90):
        assert tracker.end_without_cache(layout) == 90


def test_an_answer_of_generate_goes_on_by_forward_calls(model: LlamaForCausalLM) -> None:
    """``generate`` states the prompt's length only while it runs."""
    ids, tokens, cache = random_ids(150), random_ids(3), DynamicCache()
    with lampe.patch(model, "lampe", check=False) as handle, torch.no_grad():
        _generate(model, ids, cache)
        other = copy.deepcopy(cache)
        _read(model, random_ids(90), DynamicCache())
        ours = _steps(model, tokens, cache)
        with handle.prompt(150):
            expected = _steps(model, tokens, other)
    torch.testing.assert_close(ours, expected)


class _Pause:
    """Forward hook that pauses the calls of other threads until it is told to let them go on."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._own_thread = threading.get_ident()
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._hook = module.register_forward_hook(self._wait)

    def _wait(self, module: torch.nn.Module, inputs: object, output: object) -> None:
        if threading.get_ident() != self._own_thread:
            self.reached.set()
            assert self.go_on.wait(60)

    def __enter__(self) -> "_Pause":
        return self

    def __exit__(self, *error: object) -> None:
        self.go_on.set()
        self._hook.remove()


CALLS: dict[str, Callable[[LlamaForCausalLM, Tensor], Tensor]] = {
    "forward": lambda model, ids: model(ids).logits,
    "part of the model": lambda model, ids: model.model(ids).last_hidden_state,
    "generate": lambda model, ids: _generate(model, ids),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("patched", [False, True])
def test_a_model_that_another_thread_runs_is_neither_patched_nor_unpatched(
    model: LlamaForCausalLM, call: str, patched: bool
) -> None:
    ids = random_ids(90)
    handle = lampe.patch(model, "lampe") if patched else None
    with torch.no_grad():
        expected = CALLS[call](model, ids)
        with ThreadPoolExecutor(1) as pool, _Pause(model.model.layers[0]) as pause:
            answer = pool.submit(torch.no_grad()(CALLS[call]), model, ids)
            assert pause.reached.wait(60)
            for change in (lampe.patch, lampe.unpatch) if patched else (lampe.patch,):
                with pytest.raises(lampe.UnsupportedModel, match="running it"):
                    change(model)
            pause.go_on.set()
            torch.testing.assert_close(answer.result(), expected)
        torch.testing.assert_close(CALLS[call](model, ids), expected)
    if handle is not None:
        handle.unpatch()


def test_calls_of_other_threads_are_right_while_patches_go_on_and_come_off(
    model: LlamaForCausalLM,
) -> None:
    """Calls are those of the unpatched or of the patched model, as a whole."""
    ids = random_ids(90)
    with torch.no_grad():
        plain = model(ids).logits
        with lampe.patch(model, "lampe"):
            patched = model(ids).logits
    done = threading.Event()
    wrong: list[Tensor] = []
    counts = [0, 0]

    def call_until_done() -> None:
        with torch.no_grad():
            while not done.is_set():
                logits = model(ids).logits
                if torch.allclose(logits, plain, atol=1e-4):
                    counts[0] += 1
                elif torch.allclose(logits, patched, atol=1e-4):
                    counts[1] += 1
                else:
                    wrong.append(logits)

    def retry(change: Callable[[], object]) -> None:
        for _ in range(10_000):
            try:
                change()
            except lampe.UnsupportedModel as error:
                if "running it" not in str(error):
                    raise
                time.sleep(1e-3)
            else:
                return
        raise AssertionError("the model was never free")

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(call_until_done) for _ in range(2)]
        try:
            for _ in range(4):
                retry(lambda: lampe.patch(model, "lampe"))
                retry(lambda: lampe.unpatch(model))
        finally:
            done.set()
        for future in futures:
            future.result()
    assert not wrong and sum(counts)


def test_two_threads_that_patch_one_model_wait_for_each_other(model: LlamaForCausalLM) -> None:
    ids = random_ids(90)
    with torch.no_grad():
        plain = model(ids).logits
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(lampe.patch, model, method) for method in ("lampe", "yarn")]
    errors = [str(future.exception()) for future in futures if future.exception()]
    assert not any("running it" in error for error in errors)
    for _ in range(2 - len(errors)):
        lampe.unpatch(model)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, plain)


def test_a_patch_may_be_explained_while_other_threads_generate(model: LlamaForCausalLM) -> None:
    prompts = [random_ids(length) for length in LENGTHS]
    with lampe.patch(model, "lampe") as handle:
        with torch.no_grad():
            expected = [_generate(model, prompt) for prompt in prompts]
        backends = handle.backends
        with ThreadPoolExecutor(len(prompts)) as pool:
            answers = [pool.submit(torch.no_grad()(_generate), model, ids) for ids in prompts]
            while not all(answer.done() for answer in answers):
                assert "attention: blockwise" in lampe.explain(model)
        ours = [answer.result() for answer in answers]
        assert handle.backends == backends
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_explaining_leaves_a_stated_length_alone(model: LlamaForCausalLM) -> None:
    with lampe.patch(model, "lampe") as handle:
        outside = lampe.explain(model)
        with handle.prompt(300):
            assert lampe.explain(model) == outside
            assert handle.stated_length == 300


def test_models_may_be_patched_while_other_patched_models_run() -> None:
    """Masks find their model by its configuration."""
    models, ids = [llama() for _ in range(2)], random_ids(90)
    done = threading.Event()

    def patch_and_unpatch() -> None:
        while not done.is_set():
            with lampe.patch(llama(layers=1), check=False):
                pass

    with ThreadPoolExecutor(2) as pool, torch.no_grad():
        with lampe.patch(models[0]), lampe.patch(models[1], "yarn"):
            expected = [model(ids).logits for model in models]
            futures = [pool.submit(patch_and_unpatch) for _ in range(2)]
            try:
                for _ in range(30):
                    ours = [model(ids).logits for model in models]
                    torch.testing.assert_close(ours, expected)
            finally:
                done.set()
        for future in futures:
            future.result()


def test_a_choice_that_several_threads_make_is_recorded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dispatcher = BackendDispatcher("dense")
    barrier = threading.Barrier(THREADS)
    inputs = AttentionInputs(*torch.randn(3, 1, 2, 5, 16), Encoding(Rope((0.5,) * 8)), scale=0.25)

    class Rendezvous(list[BackendChoice]):
        """List that lets no thread add a choice before all have found it missing."""

        def __contains__(self, choice: object) -> bool:
            found = super().__contains__(choice)
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(1)
            return found

    dispatcher.choices = Rendezvous()
    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(dispatcher.attend, inputs) for _ in range(THREADS)]:
            future.result()
    assert len(dispatcher.choices) == 1


def test_taking_a_patch_off_frees_the_tables_of_all_threads(model: LlamaForCausalLM) -> None:
    tables: list[weakref.ref[RotaryTables]] = []

    def read_and_record(ids: Tensor) -> Tensor:
        logits: Tensor = model(ids).logits
        state = handle._attention.encodings._thread
        tables.extend(weakref.ref(known.tables) for known in state.prompts.values())
        return logits

    with ThreadPoolExecutor(1) as pool:
        handle = lampe.patch(model, "lampe")
        with torch.no_grad():
            read_and_record(random_ids(90))
        pool.submit(torch.no_grad()(read_and_record), random_ids(80)).result()
        assert len(tables) == 2 and all(table() is not None for table in tables)
        handle.unpatch()
        gc.collect()
        assert all(table() is None for table in tables)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_keeps_a_stated_length_in_backward(
    model: LlamaForCausalLM, reentrant: bool
) -> None:
    """Backward runs the layers again, after the statement has ended."""
    ids = random_ids(90)
    weight = model.model.layers[0].self_attn.k_proj.weight
    gradients = []
    with lampe.patch(model, "lampe") as handle:
        for checkpointing in (False, True):
            if checkpointing:
                model.train()
                model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            with handle.prompt(300):
                loss = model(ids, use_cache=False).logits.square().mean()
            model(random_ids(40), use_cache=False)
            model.zero_grad()
            loss.backward()
            gradients.append(weight.grad.clone())
    torch.testing.assert_close(gradients[1], gradients[0])
