"""Behaviour 2: every list ends, is whole, and goes on after the id that it is told; and what lists are filtered by."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from scene import Scene
from sdk_parts import every, expect

_MOST = 2000
"""More than any list in here has; a list that does not end is found out by it."""


def files_by_pages(scene: Scene) -> None:
    """Lists of files end; limit 1 and after go through all of them."""
    for number in range(3):
        content = json.dumps({"custom_id": str(number)}).encode()
        scene.client.files.create(file=(f"page-{number}.jsonl", content), purpose="user_data")
    whole(
        scene,
        lambda **page: scene.client.files.list(purpose="user_data", **page),
        "/files?purpose=user_data&limit=1",
        3,
    )


def jobs_by_pages(scene: Scene) -> None:
    """Lists of jobs end; limit 1 and after go through all of them."""
    whole(scene, scene.client.fine_tuning.jobs.list, "/fine_tuning/jobs?limit=1", 1)


def events_by_pages(scene: Scene) -> None:
    """Lists of events end; limit 1 and after go through all of them."""
    where = f"/fine_tuning/jobs/{scene.job.id}/events?limit=1"
    whole(scene, lambda **page: scene.client.fine_tuning.jobs.list_events(scene.job.id, **page), where, 3)


def checkpoints_by_pages(scene: Scene) -> None:
    """Lists of checkpoints end; limit 1 and after go through all of them; pages name their first and last id."""
    where = f"/fine_tuning/jobs/{scene.job.id}/checkpoints?limit=1"
    whole(scene, lambda **page: scene.client.fine_tuning.jobs.checkpoints.list(scene.job.id, **page), where, 1)
    page = scene.wire.send("GET", where.partition("?")[0]).json
    ids = [one["id"] for one in page["data"]]
    expect(
        (page.get("first_id"), page.get("last_id")) == (ids[0], ids[-1]), "a page has first_id and last_id", page=page
    )


def batches_by_pages(scene: Scene) -> None:
    """Lists of batches end; limit 1 and after go through all of them."""
    for number in range(2):
        body = {"model": scene.asked.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        line = {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body}
        file = scene.client.files.create(file=(f"page-{number}.jsonl", json.dumps(line).encode()), purpose="batch")
        scene.client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    whole(scene, scene.client.batches.list, "/batches?limit=1", 2)


def models_on_one_page(scene: Scene) -> None:
    """The list of models has no pages: it is whole at once, with aliases, bases and fine-tuned models."""
    page = scene.wire.send("GET", "/models").json
    names = [one["id"] for one in page["data"]]
    expect(page["object"] == "list" and len(names) == len(set(names)), "it is a list, each model once", names=names)
    for name in (scene.asked.model, scene.asked.base.rpartition("/")[2], scene.job.fine_tuned_model):
        expect(name in names, f"{name} is on it", names=names)


def order_of_files(scene: Scene) -> None:
    """Files come newest first, or oldest first with order asc."""  # of one purpose: batches may still be writing theirs
    newest = [file.created_at for file in every(scene.client.files.list(purpose="fine-tune", order="desc"))]
    usual = [file.created_at for file in every(scene.client.files.list(purpose="fine-tune"))]
    oldest = [file.created_at for file in every(scene.client.files.list(purpose="fine-tune", order="asc"))]
    expect(newest == sorted(newest, reverse=True), "order desc is newest first", times=newest)
    expect(usual == newest, "newest first is what comes without order", times=usual)
    expect(oldest == sorted(oldest), "order asc is oldest first", times=oldest)


def filters(scene: Scene) -> None:
    """Files are filtered by purpose, jobs by metadata."""
    purposes = {file.purpose for file in every(scene.client.files.list(purpose="fine-tune"))}
    expect(purposes == {"fine-tune"}, "only files of the purpose come", purposes=purposes)
    jobs = every(scene.client.fine_tuning.jobs.list(metadata={"nobody": "has this"}))
    expect(jobs == [], "only jobs with the metadata come", ids=[job.id for job in jobs])


def whole(scene: Scene, pages: Callable[..., Any], where: str, least: int) -> None:
    """One list, page by page: as long as at once, each id once, and on from any id."""
    at_once = ids(pages())
    expect(len(at_once) >= least, f"the list has {least} or more", ids=at_once)
    expect(len(set(at_once)) == len(at_once), "each id comes once", ids=at_once)
    one_by_one = ids(pages(limit=1))
    expect(one_by_one == at_once, "with limit 1 the same comes, in the same order", limit_1=one_by_one, at_once=at_once)
    after = ids(pages(after=at_once[0], limit=2))
    expect(after == at_once[1:], "after the first id the others come", after=after, at_once=at_once)
    expect(ids(pages(after=at_once[-1])) == [], "after the last id nothing comes", at_once=at_once)
    page = scene.wire.send("GET", where).json
    expect(page["object"] == "list" and len(page["data"]) == 1, "limit 1 is a list of one", page=page)
    expect(
        page.get("has_more") is (len(at_once) > 1), "has_more says whether there are more", page=page, all=len(at_once)
    )
    last = scene.wire.send("GET", f"{where}&after={at_once[-2]}").json if len(at_once) > 1 else page
    expect(last.get("has_more") is False, "the last page says that it is the last", page=last)


def ids(items: Iterable[Any]) -> list[str]:
    return [item.id for item in every(items, _MOST)]


CHECKS = (
    files_by_pages,
    jobs_by_pages,
    events_by_pages,
    checkpoints_by_pages,
    batches_by_pages,
    models_on_one_page,
    order_of_files,
    filters,
)
