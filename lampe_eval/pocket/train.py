"""Train the pocket model from nothing: `python -m lampe_eval.pocket.train --output DIR`.

A model this small learns to find what it has read only if it is helped to, and this is the help:

* **look-back initialisation.** Retrieval needs heads that see the token before. Half of the first layer's heads start
  as such: with key bias (a, 0) and query bias a (cos n theta, -sin n theta) on every rotary pair, the logit of a key at
  distance d is a^2 sum cos((d - n) theta), which peaks at d = n. One query head looks one token back, one two.
* **repetition first.** A random segment repeated over a short sequence has one thing to learn, copying.
* **then a mixture**: needles among stories with several keys and questions, segments copied over gaps, stories alone.
  Questions stand anywhere in the sequence, so needles are found at every distance.

The loss leaves out what nobody can know (random segments and codes at their first mention) and counts the answer to a
question more than other tokens. Texts, keys and seeds of the training are none of the evaluation's.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lampe_eval.benches.needles import (
    ONE_CODE,
    SEVERAL_CODES,
    SEVERAL_KEYS,
    NeedleQuestion,
    NeedleSpec,
    assemble_prompt,
    random_question,
    shortest_length,
)
from lampe_eval.pocket import pocket_scores, pocket_tokenizer
from lampe_eval.texts import pocket_language

WINDOW = 256
LOOK_BACK = 1.4


@dataclass(frozen=True)
class Stage:
    """So many steps on sequences of one length; `mixture` weighs the kinds of sequence."""

    steps: int
    length: int
    batch: int
    mixture: dict[str, float]


@dataclass(frozen=True)
class Training:
    """Everything that decides the outcome."""

    stages: tuple[Stage, ...] = (
        Stage(steps=150, length=64, batch=128, mixture={"repeat": 1}),
        Stage(
            steps=350,
            length=128,
            batch=64,
            mixture={"needles": 0.5, "copies": 0.25, "stories": 0.25},
        ),
        Stage(
            steps=2600,
            length=256,
            batch=32,
            mixture={"needles": 0.6, "copies": 0.15, "stories": 0.25},
        ),
    )
    seed: int = 0
    learning_rate: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.1
    answer_weight: float = 5.0
    texts: int = 6000
    words_per_text: int = 500

    def shortened(self, share: float) -> "Training":
        """The same course with a share of the steps, for a quick look."""
        stages = tuple(
            Stage(max(1, round(s.steps * share)), s.length, s.batch, s.mixture) for s in self.stages
        )
        return replace(self, stages=stages)


@dataclass(frozen=True)
class Sequence:
    """Token ids and, for each, what predicting it counts in the loss."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: list[int], weights: list[float] | float = 1.0) -> None:
        self.ids.extend(ids)
        self.weights.extend(weights if isinstance(weights, list) else [weights] * len(ids))

    def cut(self, length: int) -> "Sequence":
        return Sequence(self.ids[:length], self.weights[:length])


class Material:
    """Draws training sequences; `kinds` names them."""

    def __init__(self, training: Training, words: PreTrainedTokenizerFast) -> None:
        self.rng = Random(f"train {training.seed}")
        self.training = training
        self.words = words
        self.end = self.encode(pocket_tokenizer.END)[0]
        self.sentence_ends = {self.encode(".")[0]}
        self.digits = set(self.encode("0123456789")) | {
            self.encode(f" {digit}")[0] for digit in range(10)
        }
        self.stream = self._stories()
        self.kinds: dict[str, Callable[[int], Sequence]] = {
            "repeat": self.repeat,
            "needles": self.needles,
            "copies": self.copies,
            "stories": self.stories,
        }

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.words.encode(text, add_special_tokens=False)
        return ids

    def _stories(self) -> Tensor:
        texts = [
            pocket_language.text(f"train {i}", self.training.words_per_text)
            for i in range(self.training.texts)
        ]
        encoded = self.words(texts, add_special_tokens=False)["input_ids"]
        return torch.tensor(
            [token for ids in encoded for token in [*ids, self.end]], dtype=torch.int16
        )

    def passage(self, length: int) -> list[int]:
        """So many tokens from anywhere in the stories."""
        start = self.rng.randrange(len(self.stream) - length)
        ids: list[int] = self.stream[start : start + length].tolist()
        return ids

    def noise(self, length: int) -> list[int]:
        return [self.rng.randrange(len(self.words)) for _ in range(length)]

    def repeat(self, length: int) -> Sequence:
        """One random segment over and over."""
        period = self.rng.randint(4, 32)
        segment = self.noise(period)
        out = Sequence()
        out.add(segment, 0.0)
        while len(out) < length:
            out.add(segment)
        return out.cut(length)

    def copies(self, length: int) -> Sequence:
        """A story interrupted by random segments, some of which come again."""
        out = Sequence()
        seen: list[list[int]] = []
        while len(out) < length:
            if seen and self.rng.random() < 0.6:
                out.add(self.rng.choice(seen))
            else:
                seen.append(self.noise(self.rng.randint(3, 16)))
                out.add(seen[-1], 0.0)
            out.add(self.passage(self.rng.randint(0, length // 4)))
        return out.cut(length)

    def stories(self, length: int) -> Sequence:
        out = Sequence()
        out.add(self.passage(length))
        return out

    def needles(self, length: int) -> Sequence:
        """A haystack with needles, then questions about them with more of the story in between."""
        case = self._question(self._hidden(length))
        size = self.rng.randint(shortest_length(case, self.encode), length)
        prompt = assemble_prompt(case, self.passage(length), self.encode, size, self.sentence_ends)
        out = Sequence()
        out.add(prompt, [0.0 if token in self.digits else 1.0 for token in prompt])
        out.add([*self.encode(case.answer), self.end], self.training.answer_weight)
        while len(out) < length:
            if self.rng.random() < 0.3:
                out.add(self.passage(self.rng.randint(1, length // 4)))
            else:
                case = self._question(case)
                out.add(self.encode(case.prompt_end))
                out.add([*self.encode(case.answer), self.end], self.training.answer_weight)
        return out.cut(length)

    def _hidden(self, length: int) -> NeedleQuestion:
        """From one needle to as many as fill most of the sequence; the first key may have several codes."""
        values = self.rng.choice((1, 1, 1, 2, 3, 4))
        keys = self.rng.randint(1, max(1, (length - 40) // 17 - values + 1))
        return random_question(
            self.rng, NeedleSpec(keys=keys, values=values), self.rng.uniform(0, 100), "train"
        )

    def _question(self, case: NeedleQuestion) -> NeedleQuestion:
        """Another question about the same needles: for the codes of one key, for several keys, or plainly for one."""
        single = [key for key, codes in case.codes.items() if len(codes) == 1]
        several = [key for key in case.codes if key not in single]
        draw = self.rng.random()
        if several and (draw < 0.5 or not single):
            return replace(case, wording=SEVERAL_CODES, queried_keys=tuple(several))
        if len(single) > 1 and draw < 0.7:
            asked = self.rng.sample(single, self.rng.randint(2, min(3, len(single))))
            return replace(case, wording=SEVERAL_KEYS, queried_keys=tuple(asked))
        return replace(case, wording=ONE_CODE, queried_keys=(self.rng.choice(single),))

    def batch(self, stage: Stage) -> tuple[Tensor, Tensor]:
        kinds = self.rng.choices(
            list(stage.mixture), weights=list(stage.mixture.values()), k=stage.batch
        )
        rows = [self.kinds[kind](stage.length) for kind in kinds]
        return torch.tensor([row.ids for row in rows]), torch.tensor([row.weights for row in rows])


def new_model(words: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The model before its first step."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation(
        "eager"
    )  # at 256 tokens a fifth faster than sdpa on a CPU, backward included
    _look_back(model)
    return model


@torch.no_grad()
def _look_back(model: LlamaForCausalLM) -> None:
    """Make the first key head of the first layer, and its two query heads, look one and two tokens back."""
    attention = model.model.layers[0].self_attn
    theta = model.model.rotary_emb.inv_freq
    key = torch.cat([torch.ones_like(theta), torch.zeros_like(theta)])
    attention.k_proj.bias[: len(key)] = LOOK_BACK * key
    for head, back in enumerate((1, 2)):
        query = torch.cat([torch.cos(back * theta), -torch.sin(back * theta)])
        attention.q_proj.bias[head * len(query) : (head + 1) * len(query)] = LOOK_BACK * query


def new_optimizer(model: LlamaForCausalLM, training: Training) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.95))


def learning_rate(step: int, steps: int, training: Training) -> float:
    """Linear warm-up, then a half cosine to nothing."""
    warm = min(1.0, (step + 1) / training.warmup)
    return training.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def weighted_loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    scale = weights[:, 1:].flatten()
    return (losses * scale).sum() / scale.sum()


LossOf = Callable[[LlamaForCausalLM, Tensor, Tensor], Tensor]


def fit(
    model: LlamaForCausalLM, material: Material, training: Training, loss_of: LossOf = weighted_loss
) -> int:
    """Train in place; the number of tokens that were read."""
    stages = [stage for stage in training.stages for _ in range(stage.steps)]
    steps = len(stages)
    optimizer = new_optimizer(model, training)
    started = time.monotonic()
    tokens = 0
    for step, stage in enumerate(stages):
        ids, weights = material.batch(stage)
        tokens += ids.numel()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, training)
        loss = loss_of(model, ids, weights)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == steps - 1:
            print(
                f"step {step}/{steps} loss {loss.item():.3f} seconds {time.monotonic() - started:.0f}",
                flush=True,
            )
    return tokens


def save(folder: Path, model: LlamaForCausalLM, words: PreTrainedTokenizerFast) -> None:
    ends = {"eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id}
    model.generation_config = GenerationConfig.from_dict(ends)
    model.save_pretrained(folder)
    words.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the pocket model.")
    parser.add_argument(
        "--output", type=Path, default=Path("pocket-weights"), help="folder for the checkpoint"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the steps to do, for a quick look"
    )
    parser.add_argument(
        "--compile", action="store_true", help="a third faster; needs a C++ compiler"
    )
    options = parser.parse_args()
    training = Training(seed=options.seed).shortened(options.share)
    words = pocket_tokenizer.build()
    model = new_model(words, training.seed)
    started = time.monotonic()
    tokens = fit(
        model,
        Material(training, words),
        training,
        torch.compile(weighted_loss, dynamic=False) if options.compile else weighted_loss,
    )
    seconds = time.monotonic() - started
    model.train(False)
    save(options.output, model, words)
    record = {
        "data": "generated by lampe_eval.texts.pocket_language and lampe_eval.benches.needles; nothing else",
        "training": asdict(training),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "scores": pocket_scores.scores(model, words),
    }
    (options.output / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["scores"], indent=2))


if __name__ == "__main__":
    main()
