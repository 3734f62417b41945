"""Long unlike rows that every machine has: what functions and classes are called, and their docstrings.

Of the standard library and of the packages installed beside it, read from their files: nothing is imported. The same
files and the same seed give the same rows.
"""

import ast
import inspect
import random
import site
import sys
import sysconfig
import warnings
from pathlib import Path

SHORTEST, LONGEST = 20, 1000
"""Tokens, of the docstring and of the whole rendered row."""
MOST_OF_ONE_FILE = 3
_LARGEST_FILE = 1 << 20
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def docstrings(count, tokenizer, seed=0):
    """``count`` chats: what something does, and its docstring. No docstring comes twice."""
    shuffled = random.Random(seed)
    files = source_files()
    shuffled.shuffle(files)
    rows = {}
    for path, module in files:
        documented = documented_in(path, module)
        shuffled.shuffle(documented)
        fit = {text: row_of(title, text) for title, text in documented if text not in rows}
        fit = [(text, row) for text, row in fit.items() if fits(text, row, tokenizer)]
        rows |= dict(fit[:MOST_OF_ONE_FILE])
        if len(rows) >= count:
            return list(rows.values())[:count]
    sys.exit(f"only {len(rows)} docstrings of {SHORTEST} to {LONGEST} tokens are found here")


def source_files():
    """(file, module) of everything but tests, in an order that does not depend on the machine's folders."""
    standard = Path(sysconfig.get_path("stdlib"))
    installed = {Path(folder) for folder in (*sys.path, *site.getsitepackages()) if folder.endswith("-packages")}
    found = []
    for root in (standard, *sorted(installed)):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            if root == standard and parts[0] == "site-packages":
                continue
            if not any(part.startswith("test") for part in parts):
                found.append((path, ".".join(part for part in parts if part != "__init__")))
    return sorted(found, key=lambda item: item[1])


def documented_in(path, module):
    """(name and signature, docstring) of what has one."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes that somebody else has written
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return list(_within(tree, module))


def _within(node, name):
    for child in node.body:
        if not isinstance(child, _DOCUMENTED):
            continue
        inner = f"{name}.{child.name}"
        if text := ast.get_docstring(child, clean=False):
            yield f"{inner}({_parameters(child)})", inspect.cleandoc(text)
        if isinstance(child, ast.ClassDef):
            yield from _within(child, inner)


def _parameters(node):
    return ", ".join(map(ast.unparse, node.bases)) if isinstance(node, ast.ClassDef) else ast.unparse(node.args)


def row_of(title, text):
    question = f"What does this do in Python?\n\n{title}"
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": text}]}


def fits(text, row, tokenizer):
    if not SHORTEST <= len(tokenizer(text).input_ids) <= LONGEST:
        return False
    rendered = tokenizer.apply_chat_template(row["messages"], tokenize=False)
    return len(tokenizer(rendered, add_special_tokens=False).input_ids) <= LONGEST
