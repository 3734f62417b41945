"""Behaviours 1 and 3: what retries may not do twice, what is over, names with a slash; and what jobs accept and refuse."""

from __future__ import annotations

import urllib.parse
from typing import Any

import relied_on
from openai import BadRequestError, NotFoundError, PermissionDeniedError, UnprocessableEntityError
from scene import Scene, cancelled, refused
from sdk_parts import expect

_METHOD = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}


def repeated_upload(scene: Scene) -> None:
    """The same upload again within seconds, as a retry sends it, makes no second file."""
    content = "".join(scene.rows[:3]).encode()
    first, again = (scene.client.files.create(file=("again.jsonl", content), purpose="fine-tune") for _ in range(2))
    expect(first.id == again.id, "both answers are the one file", first=first.to_dict(), again=again.to_dict())
    named = [file.id for file in scene.client.files.list(purpose="fine-tune") if file.filename == "again.jsonl"]
    expect(named.count(first.id) == 1, "the list has it once", ids=named)


def an_upload_after_its_deletion(scene: Scene) -> None:
    """The same upload once the first was deleted is a new file."""
    content = "".join(scene.rows[3:6]).encode()
    first = scene.client.files.create(file=("gone.jsonl", content), purpose="fine-tune")
    scene.client.files.delete(first.id)
    again = scene.client.files.create(file=("gone.jsonl", content), purpose="fine-tune")
    came = scene.client.files.retrieve(again.id)
    expect(came.id != first.id, "it is another file, which is there", first=first.id, again=came.to_dict())


def repeated_job(scene: Scene) -> None:
    """The same job again within seconds, as a retry sends it, makes no second job."""
    first, again = (a_job(scene, suffix="repeated") for _ in range(2))
    expect(first.id == again.id, "both answers are the one job", first=first.to_dict(), again=again.to_dict())
    cancelled(scene.client, first.id)


def finished_is_final(scene: Scene) -> None:
    """Cancel, pause and resume of a finished job are refused with 400, which no SDK retries."""
    jobs = scene.client.fine_tuning.jobs
    for call in (jobs.cancel, jobs.pause, jobs.resume):
        scene.sent.clear()
        error = refused(lambda call=call: call(scene.job.id), BadRequestError)
        expect(len(scene.sent) == 1, "it was asked once", sent=scene.sent)
        expect("succeeded" in error.message, "the message says what the job is", message=error.message)
    expect(jobs.retrieve(scene.job.id).status == "succeeded", "the job is as it was")


def names_with_a_slash(scene: Scene) -> None:
    """A model whose name has a slash is found by the SDK, and on the wire both as it is and as %2F."""
    base = scene.asked.base
    expect("/" in base, "the base has a slash", base=base)
    relied_on.a_model(scene.client.models.retrieve(base), base)
    answers = [scene.wire.send("GET", f"/models/{name}") for name in (base, urllib.parse.quote(base, safe=""))]
    for answer in answers:
        expect(answer.status == 200 and answer.json["id"] == base, f"{answer.request} finds it", body=answer.text)
    relied_on.a_model(scene.client.models.retrieve(scene.asked.model), scene.asked.model)
    tuned = urllib.parse.quote(scene.job.fine_tuned_model, safe="")
    expect(scene.wire.send("GET", f"/models/{tuned}").status == 200, "a name with %3A is found", name=tuned)


def bases_stay(scene: Scene) -> None:
    """Neither a base model nor an alias can be deleted: the refusal is no 404 and is not retried."""
    for name in (scene.asked.base, scene.asked.model):
        scene.sent.clear()
        refused(lambda name=name: scene.client.models.delete(name), (BadRequestError, PermissionDeniedError))
        expect(len(scene.sent) == 1, "it was asked once", sent=scene.sent)
        relied_on.a_model(scene.client.models.retrieve(name), name)


def unknown_names(scene: Scene) -> None:
    """An unknown model, job or file is a 404 that says so; that of a model lists what there is."""
    client = scene.client

    def chat() -> Any:
        return client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "?"}])

    for call in (
        chat,
        lambda: client.models.retrieve("nobody/nothing"),
        lambda: a_job(scene, model="nobody", suffix="n"),
    ):
        error = refused(call, NotFoundError)
        expect("nobody" in error.message, "the message names what was asked for", message=error.message)
    expect(scene.asked.model in refused(chat, NotFoundError).message, "and lists what there is")
    for look in (
        client.fine_tuning.jobs.retrieve,
        client.fine_tuning.jobs.cancel,
        client.fine_tuning.jobs.checkpoints.list,
    ):
        refused(lambda look=look: look("ftjob-nobody"), NotFoundError)
    refused(lambda: client.batches.retrieve("batch_nobody"), NotFoundError)
    refused(lambda: client.files.content("file-nobody"), NotFoundError)


def unknown_keys(scene: Scene) -> None:
    """Keys of a request that nobody knows are accepted, also the old form of hyperparameters."""
    job = scene.client.fine_tuning.jobs.create(
        model=scene.asked.model,
        training_file=scene.training_file,
        suffix="unknown-keys",
        hyperparameters={"n_epochs": 3},
        extra_body={"a_key_of_tomorrow": {"x": 1}},
    )
    relied_on.a_job(job)
    cancelled(scene.client, job.id)
    job = scene.client.fine_tuning.jobs.retrieve(job.id)
    expect(job.hyperparameters.n_epochs == 3, "the old form of hyperparameters counts", job=job.to_dict())


def faulty_jobs(scene: Scene) -> None:
    """What a job cannot be is refused at once, and the refusal names the field."""
    wrong: dict[str, dict[str, Any]] = {
        "suffix": {"suffix": "s" * 65},
        "training_file": {"training_file": "file-nobody"},
        "validation_file": {"validation_file": "file-nobody"},
        "n_epochs": {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": -1}}}},
        "method": {"method": {"type": "by magic"}},
        "seed": {"seed": "a lucky one"},
    }
    kinds = (BadRequestError, NotFoundError, UnprocessableEntityError)
    for name, fields in wrong.items():
        error = refused(lambda fields=fields: a_job(scene, **fields), kinds)
        expect(name in f"{error.param} {error.message}", f"the refusal names {name}", body=error.body)


def a_job(scene: Scene, **fields: Any) -> Any:
    """A new job on the scene's training file."""
    usual = {"model": scene.asked.model, "training_file": scene.training_file, "method": _METHOD}
    asked = {**usual, "metadata": scene.job.metadata, **fields}
    return scene.client.fine_tuning.jobs.create(**asked)


CHECKS = (
    repeated_upload,
    an_upload_after_its_deletion,
    repeated_job,
    finished_is_final,
    names_with_a_slash,
    bases_stay,
    unknown_names,
    unknown_keys,
    faulty_jobs,
)
