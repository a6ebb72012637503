"""Tokenizer of the pocket model: one token for each word of its language, bytes for all other text.

Text is split into words with the space before them, digits with the space before them, and the
rest. A piece in the vocabulary is one token; any other piece is spelled in bytes, so every text is
decoded to what was encoded. There is one special token, the end of an answer. The model is trained
without a token for the beginning.
"""

import re
from dataclasses import astuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lampe_eval.benches.needles import ONE_CODE, SEVERAL_CODES, SEVERAL_KEYS
from lampe_eval.texts.pocket_language import VOCABULARY

END_OF_ANSWER = "<|end|>"

_PIECES = Regex(r" ?[A-Za-z]+| ?[0-9]")


def vocabulary_words() -> tuple[str, ...]:
    """Return every word that has a token: words of stories, of needles and of questions."""
    words = set(VOCABULARY)
    for wording in (ONE_CODE, SEVERAL_CODES, SEVERAL_KEYS):
        for sentence in astuple(wording):
            words.update(re.findall(r"[A-Za-z]+", re.sub(r"{\w+}", "", sentence)))
    return tuple(sorted(words))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer as transformers' own class."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled: list[str] = []
    for piece in _pieces():
        # a byte-level vocabulary stores pieces in its own alphabet, a space as "Ġ"
        spelled.append("".join(part for part, _ in byte_level.pre_tokenize_str(piece)))
    vocabulary = [END_OF_ANSWER, *sorted(pre_tokenizers.ByteLevel.alphabet()), *spelled]
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    # Without merges nothing is ever joined; ignore_merges still finds whole pieces.
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[], ignore_merges=True))
    tokenizer.add_special_tokens([AddedToken(END_OF_ANSWER, special=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, behavior="isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END_OF_ANSWER,
        pad_token=END_OF_ANSWER,
        clean_up_tokenization_spaces=False,
    )


def _pieces() -> list[str]:
    """Return digits and words after a space, and capitalised words as they begin a paragraph."""
    words = vocabulary_words()
    after_space = [f" {word}" for word in (*"0123456789", *words)]
    return after_space + [word for word in words if word[0].isupper()]
