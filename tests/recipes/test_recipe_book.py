"""The recipe book follows the folder: recipes come, change, break and go while the server runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tunesmith.errors import InvalidInput, MissingReference
from tunesmith.recipes import BrokenRecipe, Recipe, RecipeBook


def names(book: RecipeBook) -> list[str]:
    return [recipe.name for recipe in book.all()]


def test_a_folder_dropped_in_is_there_at_once(write_recipe, recipes_dir: Path) -> None:
    """A new training mode needs no restart."""
    book = RecipeBook(recipes_dir)
    assert book.all() == []
    write_recipe("one")
    assert book.get("one").name == "one"
    write_recipe("two")
    assert names(book) == ["one", "two"]


def test_an_edit_is_seen_and_an_unchanged_recipe_is_not_read_again(write_recipe, recipes_dir: Path) -> None:
    """The files are read when they changed, and only then."""
    book = RecipeBook(recipes_dir)
    write_recipe()
    first = book.get("tiny")
    assert book.get("tiny") is first
    assert book.all()[0] is first
    write_recipe("tiny", ("seed: 42", "seed: 43"))
    assert book.get("tiny").schema["training.seed"].default == 43


def test_an_edit_that_keeps_size_and_date_is_seen(write_recipe, recipes_dir: Path) -> None:
    """Copying tools preserve dates."""
    book = RecipeBook(recipes_dir)
    path = write_recipe() / "recipe.yaml"
    book.get("tiny")
    before = path.stat()
    path.write_text(path.read_text().replace("seed: 42", "seed: 43"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert book.get("tiny").schema["training.seed"].default == 43


def test_a_broken_recipe_never_breaks_the_others(write_recipe, recipes_dir: Path) -> None:
    """It is listed with its faults; the others work; mended, it works again."""
    book = RecipeBook(recipes_dir)
    write_recipe("good")
    write_recipe("bad", ("name: bad", "name: ["))
    good, bad = sorted(book.all(), key=lambda recipe: isinstance(recipe, BrokenRecipe))
    assert isinstance(good, Recipe)
    assert isinstance(bad, BrokenRecipe)
    with pytest.raises(InvalidInput, match="the recipe bad is broken") as refused:
        book.get("bad")
    assert refused.value.faults == bad.faults
    assert not isinstance(refused.value, MissingReference)
    write_recipe("bad")
    assert book.get("bad").name == "bad"


def test_a_recipe_that_is_gone_is_missing(write_recipe, recipes_dir: Path) -> None:
    """Nothing is served from memory once the folder is gone."""
    book = RecipeBook(recipes_dir)
    folder = write_recipe()
    book.get("tiny")
    (folder / "run.sh").unlink()
    with pytest.raises(InvalidInput, match=r"run\.sh: is missing"):
        book.get("tiny")
    (folder / "recipe.yaml").unlink()
    folder.rmdir()
    with pytest.raises(MissingReference):
        book.get("tiny")
    assert book.all() == []


def test_a_wrong_name_brings_the_nearest_and_the_list(write_recipe, recipes_dir: Path) -> None:
    """The answer to a typo is the name that was meant."""
    for name in ("sft", "lora", "dpo"):
        write_recipe(name)
    with pytest.raises(MissingReference) as missing:
        RecipeBook(recipes_dir).get("loar")
    assert missing.value.mend == "did you mean lora? the recipes are dpo, lora, sft"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../recipes/tiny", "/etc", "tiny/", "Tiny", "a\0b", "x" * 5000, "ti\nny", "\ud800"]
)
def test_a_hostile_name_touches_nothing(write_recipe, recipes_dir: Path, name: str) -> None:
    """A name that could not be a recipe's is not looked up on the disk."""
    write_recipe()
    with pytest.raises(MissingReference) as missing:
        RecipeBook(recipes_dir).get(name)
    assert len(str(missing.value)) < 300


def test_what_is_no_recipe_is_left_out_or_reported(write_recipe, recipes_dir: Path) -> None:
    """Files, pipes and folders starting with . or _ are not recipes; an empty folder is a recipe that is not finished."""
    write_recipe()
    (recipes_dir / "README.md").write_text("about")
    os.mkfifo(recipes_dir / "pipe")
    for name in (".git", "_shared", "unfinished", "Bad Name"):
        (recipes_dir / name).mkdir()
    (recipes_dir / os.fsdecode(b"not text \xff")).mkdir()
    (recipes_dir / "linked").symlink_to(recipes_dir / "tiny")
    found = RecipeBook(recipes_dir).all()
    assert {recipe.name: type(recipe) for recipe in found} == {
        "Bad Name": BrokenRecipe,
        "linked": BrokenRecipe,
        "tiny": Recipe,
        "unfinished": BrokenRecipe,
    }


def test_a_missing_recipes_folder_is_an_empty_book(tmp_path: Path) -> None:
    """The server warns; the book has nothing to say."""
    book = RecipeBook(tmp_path / "nowhere")
    assert book.all() == []
    with pytest.raises(MissingReference, match="there are no recipes in"):
        book.get("lora")


def test_recipes_are_found_from_any_working_folder(write_recipe, recipes_dir: Path) -> None:
    """Runs start in folders of their own, so a relative recipes folder is made absolute."""
    write_recipe()
    with contextlib.chdir(recipes_dir.parent):
        book = RecipeBook(Path("recipes"))
    assert book.get("tiny").run_sh == recipes_dir / "tiny" / "run.sh"
