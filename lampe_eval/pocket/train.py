"""Training of the pocket model from nothing: `python -m lampe_eval.pocket.train --output DIR`.

A model this small learns retrieval only with help:

* **Look-back initialisation.** Retrieval needs heads that attend to the token before. Half of the
  first layer's heads start as such: with key bias (a, 0) and query bias a (cos n theta,
  -sin n theta) on every rotary pair, the logit of a key at distance d is
  a^2 sum cos((d - n) theta), which is largest at d = n. One query head attends one token back, the
  other two.
* **Repetition first.** A random segment that repeats in a short sequence can only teach copying.
* **Then a mixture**: needles among stories with several keys and questions, segments copied over
  gaps, stories alone. Questions occur anywhere in the sequence, so needles are found at every
  distance.

The loss leaves out what cannot be predicted (random segments, and codes at their first mention) and
weighs the answer to a question more than other tokens. Texts, keys and seeds of the training do not
occur in the evaluation.
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
LOOK_BACK_BIAS = 1.4
"""The a of the module's formula."""
PRINT_EVERY = 25
"""Steps between lines of progress."""


@dataclass(frozen=True)
class TrainingStage:
    """Steps on sequences of one length.

    Attributes:
        steps: optimizer steps.
        length: tokens of a sequence.
        batch: sequences of a step.
        mixture: weight of each kind of sequence; for the kinds see `SequenceSampler`.
    """

    steps: int
    length: int
    batch: int
    mixture: dict[str, float]


@dataclass(frozen=True)
class TrainingConfig:
    """Settings that decide the outcome of a training.

    Attributes:
        stages: the stages in their order.
        seed: seed of sequences and initial weights.
        learning_rate: largest learning rate.
        warmup: steps of linear warm-up.
        weight_decay: decay of matrices.
        answer_weight: weight of an answer's tokens in the loss; other tokens have weight 1 or 0.
        texts: number of stories.
        words_per_text: words of a story.
    """

    stages: tuple[TrainingStage, ...] = (
        TrainingStage(steps=150, length=64, batch=128, mixture={"repeat": 1}),
        TrainingStage(
            steps=350,
            length=128,
            batch=64,
            mixture={"needles": 0.5, "copies": 0.25, "stories": 0.25},
        ),
        TrainingStage(
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

    def shortened(self, share: float) -> "TrainingConfig":
        """Return the same training with a share of each stage's steps, at least one."""
        stages = [replace(s, steps=max(1, round(s.steps * share))) for s in self.stages]
        return replace(self, stages=tuple(stages))


@dataclass(frozen=True)
class TrainingSequence:
    """Tokens of a sequence with their weights in the loss.

    Attributes:
        ids: token ids.
        weights: for each token, the weight of predicting it.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, ids: list[int], weights: list[float] | float = 1.0) -> None:
        """Append tokens with one weight for all, or one for each."""
        self.ids.extend(ids)
        self.weights.extend(weights if isinstance(weights, list) else [weights] * len(ids))

    def cut(self, length: int) -> "TrainingSequence":
        """Return the first `length` tokens."""
        return TrainingSequence(self.ids[:length], self.weights[:length])


class SequenceSampler:
    """Generator of training sequences.

    All draws come from one generator, so their order decides the training: the same configuration
    gives the same batches as long as no draw is added, removed or moved.

    Args:
        config: settings of the training.
        tokenizer: tokenizer of the model.

    Attributes:
        kinds: for each kind of sequence, the function from a length in tokens to a sequence.
    """

    def __init__(self, config: TrainingConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        self.rng = Random(f"train {config.seed}")
        self.config = config
        self.tokenizer = tokenizer
        self.end_of_answer = self.encode(pocket_tokenizer.END_OF_ANSWER)[0]
        self.sentence_ends = {self.encode(".")[0]}
        digits = [self.encode(f" {digit}")[0] for digit in range(10)]
        self.digits = {*self.encode("0123456789"), *digits}
        self.story_ids = self._encode_stories()
        self.kinds: dict[str, Callable[[int], TrainingSequence]] = {
            "repeat": self.repeat,
            "needles": self.needles,
            "copies": self.copies,
            "stories": self.stories,
        }

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text without special tokens."""
        return pocket_scores.encode(self.tokenizer, text)

    def passage(self, length: int) -> list[int]:
        """Return `length` tokens from a random place in the stories."""
        start = self.rng.randrange(len(self.story_ids) - length)
        ids: list[int] = self.story_ids[start : start + length].tolist()
        return ids

    def noise(self, length: int) -> list[int]:
        """Return `length` random tokens."""
        return [self.rng.randrange(len(self.tokenizer)) for _ in range(length)]

    def repeat(self, length: int) -> TrainingSequence:
        """Return one random segment, repeated."""
        segment = self.noise(self.rng.randint(4, 32))
        sequence = TrainingSequence()
        sequence.add(segment, 0.0)
        while len(sequence) < length:
            sequence.add(segment)
        return sequence.cut(length)

    def copies(self, length: int) -> TrainingSequence:
        """Return a story interrupted by random segments, some of which occur again."""
        sequence = TrainingSequence()
        seen: list[list[int]] = []
        while len(sequence) < length:
            if seen and self.rng.random() < 0.6:
                sequence.add(self.rng.choice(seen))
            else:
                seen.append(self.noise(self.rng.randint(3, 16)))
                sequence.add(seen[-1], 0.0)
            sequence.add(self.passage(self.rng.randint(0, length // 4)))
        return sequence.cut(length)

    def stories(self, length: int) -> TrainingSequence:
        """Return a passage of the stories."""
        sequence = TrainingSequence()
        sequence.add(self.passage(length))
        return sequence

    def needles(self, length: int) -> TrainingSequence:
        """Return a haystack with needles, then questions about them with more story in between."""
        question = self._draw_question(self._draw_needles(length))
        size = self.rng.randint(shortest_length(question, self.encode), length)
        haystack = self.passage(length)
        prompt = assemble_prompt(question, haystack, self.encode, size, self.sentence_ends)
        sequence = TrainingSequence()
        # codes at their first mention are random, so predicting them cannot be learnt
        sequence.add(prompt, [0.0 if token in self.digits else 1.0 for token in prompt])
        self._add_answer(sequence, question)
        while len(sequence) < length:
            if self.rng.random() < 0.3:
                sequence.add(self.passage(self.rng.randint(1, length // 4)))
            else:
                question = self._draw_question(question)
                sequence.add(self.encode(question.prompt_end))
                self._add_answer(sequence, question)
        return sequence.cut(length)

    def batch(self, stage: TrainingStage) -> tuple[Tensor, Tensor]:
        """Return token ids and loss weights of a step, both of shape (batch, length)."""
        kinds = self.rng.choices(
            list(stage.mixture), weights=list(stage.mixture.values()), k=stage.batch
        )
        sequences = [self.kinds[kind](stage.length) for kind in kinds]
        ids = torch.tensor([sequence.ids for sequence in sequences])
        return ids, torch.tensor([sequence.weights for sequence in sequences])

    def _encode_stories(self) -> Tensor:
        """Return the ids of all stories one after the other, each with the end token."""
        texts = [
            # Seeds of their own: no text of the training occurs in the evaluation.
            pocket_language.text(f"train {number}", self.config.words_per_text)
            for number in range(self.config.texts)
        ]
        stream: list[int] = []
        for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]:
            stream += [*ids, self.end_of_answer]
        # int16 holds every id of so small a vocabulary.
        return torch.tensor(stream, dtype=torch.int16)

    def _add_answer(self, sequence: TrainingSequence, question: NeedleQuestion) -> None:
        answer = [*self.encode(question.answer), self.end_of_answer]
        sequence.add(answer, self.config.answer_weight)

    def _draw_needles(self, length: int) -> NeedleQuestion:
        """Return from one needle to as many as fill most of the sequence.

        The first key may have several codes.
        """
        values = self.rng.choice((1, 1, 1, 2, 3, 4))
        keys = self.rng.randint(1, max(1, (length - 40) // 17 - values + 1))
        spec = NeedleSpec(keys=keys, values=values)
        return random_question(self.rng, spec, self.rng.uniform(0, 100), "train")

    def _draw_question(self, needles: NeedleQuestion) -> NeedleQuestion:
        """Return another question about the same needles.

        It asks for all codes of one key, for the codes of several keys, or for one code.
        """
        single = [key for key, codes in needles.codes.items() if len(codes) == 1]
        several = [key for key in needles.codes if key not in single]
        draw = self.rng.random()
        if several and (draw < 0.5 or not single):
            return replace(needles, wording=SEVERAL_CODES, queried_keys=tuple(several))
        if len(single) > 1 and draw < 0.7:
            keys = self.rng.sample(single, self.rng.randint(2, min(3, len(single))))
            return replace(needles, wording=SEVERAL_KEYS, queried_keys=tuple(keys))
        return replace(needles, wording=ONE_CODE, queried_keys=(self.rng.choice(single),))


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return the model before its first step."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        # The look-back initialisation is made of the biases of queries and keys.
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # at 256 tokens a fifth faster than sdpa on a CPU, backward included
    model.set_attn_implementation("eager")
    _set_look_back_biases(model)
    return model


@torch.no_grad()
def _set_look_back_biases(model: LlamaForCausalLM) -> None:
    """Let the first layer's first key head, and its two query heads, attend 1 and 2 tokens back."""
    attention = model.model.layers[0].self_attn
    theta = model.model.rotary_emb.inv_freq
    # In the half layout the first dimensions of all pairs come before the second ones.
    key = torch.cat([torch.ones_like(theta), torch.zeros_like(theta)])
    attention.k_proj.bias[: len(key)] = LOOK_BACK_BIAS * key
    for head, distance in enumerate((1, 2)):
        query = torch.cat([torch.cos(distance * theta), -torch.sin(distance * theta)])
        dimensions = slice(head * len(query), (head + 1) * len(query))
        attention.q_proj.bias[dimensions] = LOOK_BACK_BIAS * query


def new_optimizer(model: LlamaForCausalLM, config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW with weight decay for matrices only."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """Return the rate of a step: linear warm-up times a half cosine down to zero."""
    warmup = min(1.0, (step + 1) / config.warmup)
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / steps))


def weighted_loss(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the cross entropy of next tokens.

    Args:
        model: the model.
        ids: token ids of shape (batch, length).
        weights: weight of predicting each token, of the same shape.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    scale = weights[:, 1:].flatten()
    # By the sum of the weights, as batches differ in how much of them counts.
    return (losses * scale).sum() / scale.sum()


LossFunction = Callable[[LlamaForCausalLM, Tensor, Tensor], Tensor]


def fit(
    model: LlamaForCausalLM,
    sampler: SequenceSampler,
    config: TrainingConfig,
    loss_function: LossFunction = weighted_loss,
) -> int:
    """Train a model in place and return the number of tokens that it read."""
    stage_of_step: list[TrainingStage] = []
    for stage in config.stages:
        stage_of_step += [stage] * stage.steps
    steps = len(stage_of_step)
    optimizer = new_optimizer(model, config)
    started = time.monotonic()
    tokens = 0
    for step, stage in enumerate(stage_of_step):
        ids, weights = sampler.batch(stage)
        tokens += ids.numel()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, config)
        loss = loss_function(model, ids, weights)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % PRINT_EVERY == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(f"step {step}/{steps} loss {loss.item():.3f} seconds {seconds:.0f}", flush=True)
    return tokens


def save(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write model and tokenizer to a folder."""
    special_ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model.generation_config = GenerationConfig.from_dict(special_ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def parse_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Train the pocket model.")
    parser.add_argument(
        "--output", type=Path, default=Path("pocket-weights"), help="folder for the checkpoint"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of data and initial weights")
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the steps to take, for a short trial"
    )
    parser.add_argument(
        "--compile", action="store_true", help="a third faster; needs a C++ compiler"
    )
    return parser.parse_args()


def main() -> None:
    """Train, save and score the model, and write a record of the training beside it."""
    options = parse_options()
    config = TrainingConfig(seed=options.seed).shortened(options.share)
    tokenizer = pocket_tokenizer.build_tokenizer()
    model = new_model(tokenizer, config.seed)
    loss_function: LossFunction = weighted_loss
    if options.compile:
        loss_function = torch.compile(weighted_loss, dynamic=False)
    started = time.monotonic()
    tokens = fit(model, SequenceSampler(config, tokenizer), config, loss_function)
    seconds = time.monotonic() - started
    model.train(False)
    save(options.output, model, tokenizer)
    record = {
        "data": "generated by lampe_eval.texts.pocket_language and lampe_eval.benches.needles; "
        "nothing else",
        "training": asdict(config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "scores": pocket_scores.scores(model, tokenizer),
    }
    (options.output / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["scores"], indent=2))


if __name__ == "__main__":
    main()
