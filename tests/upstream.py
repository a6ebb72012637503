"""Prompt files and rows with the structure of the official ones, but with our own sentences."""

import json
from typing import Any

from lampe_eval.texts import pocket_language

OPTIONS = "A. {OPTION_A}\nB. {OPTION_B}\nC. {OPTION_C}\nD. {OPTION_D}"
INFINITEBENCH_TEMPLATES = {
    "passkey": "A key is hidden here.\n\n{context}\n\n{input}\n\nThe key is",
    "kv_retrieval": "Look it up.\n\n{context}\n\n{input}",
    "longbook_choice_eng": (
        f"A novel.\n\n{{context}}\n\nAsked: {{question}}\n{OPTIONS}\n\nThe right letter is"
    ),
    "longbook_qa_eng": "A novel.\n\n{context}\n\nAsked: {question}\nReply:",
    "code_run": "See {func} below.\n\n{context}\n\nWork out {func_call}. What {func_call} gives is",
    "code_debug": f"One is broken.\n\n{{context}}\n\n{OPTIONS}\n\nThe broken one:",
    "math_find": "{prefix}\n\n{context}\n\n{input}",
}
INFINITEBENCH_CODE = '''
def create_prompt(eg, data_name):
    """Is this read?"""
    target = find(r"Any .+ of", eg["input"])
    assert target, f"Nothing to find in {eg}"
    return template.format(prefix=f"Which is {target} here?", context=eg["context"])
'''

LEVAL_CONFIG = """
limit = 512
def get_sys_prompt(args, file_name):
    if "gsm" in file_name:
        prompt = "T"
    elif "topic" in file_name:
        prompt  = "U"
    elif "coursera" in file_name:
        prompt = "V"
    elif "codeU" in file_name:
        prompt = "W"
    elif "sci_fi" in file_name:
        prompt = "X"
    elif "exam" in args.metric:
        prompt = "Y"
    else:
        prompt = "Z"
    return prompt
"""
LEVAL_SCRIPT = r"""
def main():
    for file_name in files:
        BEGIN, END = "<", ">"
        for d in data:
            document = d["input"]
            for inst, out in zip(d["instructions"], d["outputs"]):
                if "gsm" in file_name or "codeU" in file_name:
                    context = document + "\n\n" + inst
                elif args.metric == "exam_eval":
                    context = "Look: {document} \nSay: {inst}. Only that "
                    message += "\nAnswer:"
                else:
                    context = "Look: {document} Do: {inst} " + f"\nTake {len(out.split())} words."
                row["prompt"] = message.replace(document, "<it>")
                if "sci_fi" in file_name:
                    text = inst.replace("in the story.", "in our days") + " Be short. \nAnswer:"
                    row[f"{name}_pred"] += f" [fact: {output}]"
"""


V2_TEMPLATES = {
    "0shot.txt": "See:\n$DOC$\nSo: $Q$\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\nWhich?",
    "0shot_cot.txt": "See:\n$DOC$\nSo: $Q$\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\nThink:",
    "0shot_cot_ans.txt": (
        "So: $Q$\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\nThought: $COT$\nWhich?"
    ),
    "0shot_no_context.txt": "So: $Q$\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\nWhich?",
}


def v2_row(index: int = 0, **changes: Any) -> dict[str, Any]:
    choices = {"choice_A": "one ", "choice_B": "two", "choice_C": "\nthree", "choice_D": "four"}
    row = {
        "_id": f"q{index}",
        "domain": "Law",
        "sub_domain": "Wills",
        "difficulty": "hard",
        "length": "short",
    }
    return row | choices | {"question": " Why?\n", "answer": "C", "context": " A tale.\n"} | changes


def longbench_row(task: str, index: int, words: int = 400) -> dict[str, Any]:
    """Return a row in the schema of LongBench."""
    answers = {
        "passage_retrieval_en": "Paragraph 3",
        "passage_retrieval_zh": "段落3",
        "passage_count": "7",
        "trec": "Place",
        "lsht": "Place",
    }
    return {
        "input": "Where is the lamp?",
        "context": pocket_language.text(index, words),
        "answers": [answers.get(task, "In the harbor.")],
        "length": words,
        "dataset": task,
        "language": "en",
        "all_classes": ["Place", "Thing"] if task in ("trec", "lsht") else None,
        "_id": f"{task}-{index}",
    }


HELMET_CODE = """
def load_qa(dataset):
    if dataset:
        user_template = "Other.\\n{demos}{context}\\n\\nQuestion: {question}"
    else:
        user_template = "Read.\\n\\n{demos}{context}\\n\\nQuestion: {question}"
    system_template = "Answer:"
    passage_template = "Document (Title: {title}): {text}"

def load_json_kv():
    user_template = "{context}\\n\\nLook it up.\\n\\n{demos}Key: {question}"
    system_template = "Corresponding value:"

def load_msmarco_rerank():
    user_template = "Rank.\\n\\n{demos}{context}\\n\\nQuery: {question}"
    system_template = "Ranking:"
    def update(sample):
        passage_template = (
            "[ID: {id}] Document (Title: {title}): {text}"
            if sample
            else "[ID: {id}] Document: {text}"
        )

def load_ruler(dataset):
    user_template = "{context}\\n\\n{question}"
    system_template = "Answer:"
    if "mv" in dataset:
        user_template = "Several {type_needle_v}.\\n{context}\\nWhich {type_needle_v} has {query}?"
        system_template = "The {type_needle_v} of {query} are"
    elif "niah" in dataset:
        user_template = "One of {type_needle_v}.\\n{context}\\nWhich {type_needle_v} has {query}?"
        system_template = "That of {query} is"

def load_icl(dataset):
    user_template = "Label it. Only \\"label: {{label}}\\".\\n\\n{context}\\n\\n{question}"
    system_template = "label:"

def truncate_llama2(data, postfix_text=" ... [and so on]"):
    pass

def load_infbench(dataset):
    if "qa" in dataset:
        user_template = "A story.\\n\\n{demo}{context}\\n\\nQuestion: {question}"
        system_template = "Answer:"
    else:
        user_template = (
            "Choose.\\n\\n{demo}{context}\\n\\nQuestion: {question}\\nOptions:\\n{options}"
        )
        system_template = "Answer:"

    def add_demos(example):
        if "qa" in dataset:
            temp = "[text]\\nQuestion: {question}\\nAnswer: {answer[0]}"
        else:
            temp = "[text]\\nQuestion: {question}\\nOptions:\\n{options}\\nAnswer: {answer[0]}"
        return {"demo": f"Two examples:\\n\\n{demo}\\n\\nThe story:\\n\\n"}
"""


def llama2_tokenizer() -> bytes:
    """Return a tokenizer.json with as many tokens as Llama-2's and one for each word."""
    vocab = {f"word{number}": number for number in range(31_999)} | {"<unk>": 31_999}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        }
    ).encode()
