"""The pocket model's tokenizer: a token for each word of its language, bytes for everything else.

Text is split into words with the space before them, digits with the space before them, and what is left. A piece that
is in the vocabulary is one token, any other piece is spelled in bytes, so every text comes back as it went in.
There is one special token, the end of an answer; the model is trained without a token for the beginning.
"""

import re
from dataclasses import asdict

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lampe_eval.benches.needles import ONE_CODE, SEVERAL_CODES, SEVERAL_KEYS
from lampe_eval.texts.pocket_language import VOCABULARY

END = "<|end|>"

_PIECES = Regex(r" ?[A-Za-z]+| ?[0-9]")


def words() -> tuple[str, ...]:
    """Every word that has a token: those of the stories and those of needles and questions."""
    wordings = (asdict(wording) for wording in (ONE_CODE, SEVERAL_CODES, SEVERAL_KEYS))
    templates = re.sub(
        r"{\w+}", "", " ".join(sentence for wording in wordings for sentence in wording.values())
    )
    return tuple(sorted({*VOCABULARY, *re.findall(r"[A-Za-z]+", templates)}))


def _pieces() -> list[str]:
    """Words and digits after a space, and capitalised words as they begin a text or a paragraph."""
    after_space = [f" {word}" for word in (*"0123456789", *words())]
    return after_space + [word for word in words() if word[0].isupper()]


def build() -> PreTrainedTokenizerFast:
    """The tokenizer as transformers' own class."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = [
        "".join(piece for piece, _ in byte_level.pre_tokenize_str(piece)) for piece in _pieces()
    ]
    vocabulary = [END, *sorted(pre_tokenizers.ByteLevel.alphabet()), *spelled]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=[], ignore_merges=True
        )
    )
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(_PIECES, behavior="isolated"), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
    )
