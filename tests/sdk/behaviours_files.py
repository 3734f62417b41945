"""Behaviours 4 and 5: what deleting answers, what validation says of a bad file; uploads in parts, and graders."""

from __future__ import annotations

import hashlib
from typing import Any

import relied_on
from openai import BadRequestError, NotFoundError
from scene import Scene, finished, in_error_form, names_line, refused
from sdk_parts import described, expect

_GRADER = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}


def deletions(scene: Scene) -> None:
    """DELETE is 200 with JSON, and then the file is gone."""
    file = scene.client.files.create(file=("short.jsonl", scene.rows[6].encode()), purpose="fine-tune")
    answer = scene.wire.send("DELETE", f"/files/{file.id}")
    expect(answer.status == 200, "DELETE is 200", status=answer.status, body=answer.text)
    expect(answer.headers["content-type"].startswith("application/json"), "it is JSON", headers=answer.headers)
    expect(
        answer.json == {"id": file.id, "object": "file", "deleted": True}, "it says what is deleted", body=answer.text
    )
    in_error_form(scene.wire.send("DELETE", f"/files/{file.id}"), 404)
    refused(lambda: scene.client.files.retrieve(file.id), NotFoundError)


def a_deleted_model(scene: Scene) -> None:
    """DELETE of a model is 200 with JSON, and then it answers nobody. The last check: it takes the scene's model."""
    name = scene.job.fine_tuned_model
    answer = scene.wire.send("DELETE", f"/models/{name}")
    expect(answer.status == 200, "DELETE is 200", status=answer.status, body=answer.text)
    expect(answer.json == {"id": name, "object": "model", "deleted": True}, "it says what is deleted", body=answer.text)
    refused(lambda: scene.client.models.retrieve(name), NotFoundError)
    refused(lambda: scene.client.models.delete(name), NotFoundError)


def a_good_file(scene: Scene) -> None:
    """wait_for_processing of good rows ends in `processed`."""
    file = scene.client.files.create(file=("good.jsonl", "".join(scene.rows[7:11]).encode()), purpose="fine-tune")
    came = scene.client.files.wait_for_processing(file.id, poll_interval=0.2, max_wait_seconds=60)
    expect(came.status == "processed" and not came.status_details, "it is processed", came=relied_on.conforms(came))


def a_bad_file(scene: Scene) -> None:
    """wait_for_processing of bad rows ends in `error`, with the lines; a job on it is refused, or fails and says why."""
    rows = [*scene.rows[:2], "this is no JSON\n", scene.rows[3], '{"prompt_of_another_kind": 1}\n']
    file = scene.client.files.create(file=("bad.jsonl", "".join(rows).encode()), purpose="fine-tune")
    came = scene.client.files.wait_for_processing(file.id, poll_interval=0.2, max_wait_seconds=60)
    expect(came.status == "error", "bad rows end in error", came=relied_on.conforms(came))
    details = came.status_details or ""
    expect(names_line(details, 3) and names_line(details, 5), "status_details name lines 3 and 5", details=details)
    try:
        job = scene.client.fine_tuning.jobs.create(model=scene.asked.model, training_file=file.id, suffix="bad-file")
    except BadRequestError as error:
        expect(error.param == "training_file", "the refusal names training_file", error=described(error))
        return
    job = finished(scene.client, job.id, 90)
    expect(job.status == "failed" and job.error is not None, "the job fails, and says why", job=job.to_dict())
    expect(job.error.code and job.error.message, "the error has a code and a message", job=job.to_dict())
    expect(job.error.param == "training_file", "the error names training_file", job=job.to_dict())
    relied_on.a_job(job)


def an_upload_in_chunks(scene: Scene) -> None:
    """upload_file_chunked sends a file in parts, which is then a file like any other."""
    content = "".join(scene.rows).encode()
    upload = scene.client.uploads.upload_file_chunked(
        file=content,
        filename="chunked.jsonl",
        bytes=len(content),
        mime_type="application/jsonl",
        purpose="fine-tune",
        part_size=len(content) // 3,
    )
    relied_on.conforms(upload)
    expect(
        upload.status == "completed" and upload.file is not None, "it is completed, with a file", came=upload.to_dict()
    )
    relied_on.a_file(upload.file, "fine-tune", "chunked.jsonl", len(content))
    file = scene.client.files.wait_for_processing(upload.file.id, poll_interval=0.2, max_wait_seconds=60)
    expect(file.status == "processed", "its rows are checked, too", came=file.to_dict())
    expect(scene.client.files.content(file.id).read() == content, "the content is that of all parts")


def an_upload_by_hand(scene: Scene) -> None:
    """Parts are put together in the order of part_ids, and only if their md5 and size are right."""
    halves = ["".join(scene.rows[:8]).encode(), "".join(scene.rows[8:]).encode()]
    content = b"".join(halves)
    upload, parts = begun(scene, "by-hand.jsonl", len(content), halves[::-1])
    complete = scene.client.uploads.complete
    refused(lambda: complete(upload.id, part_ids=parts[::-1], md5=hashlib.md5(b"other").hexdigest()), BadRequestError)
    done = complete(upload.id, part_ids=parts[::-1], md5=hashlib.md5(content).hexdigest())
    expect(done.status == "completed", "it is completed", came=relied_on.conforms(done))
    expect(scene.client.files.content(done.file.id).read() == content, "the parts are in the order of part_ids")
    short, parts = begun(scene, "short.jsonl", len(content), halves[:1])
    refused(lambda: complete(short.id, part_ids=parts), BadRequestError)
    gone = scene.client.uploads.cancel(short.id)
    expect(gone.status == "cancelled", "an upload can be cancelled", came=relied_on.conforms(gone))
    refused(lambda: scene.client.uploads.parts.create(short.id, data=halves[1]), BadRequestError)
    refused(lambda: complete(short.id, part_ids=parts), BadRequestError)


def begun(scene: Scene, name: str, size: int, parts: list[bytes]) -> tuple[Any, list[str]]:
    """A new upload with these parts, and the parts' ids."""
    upload = scene.client.uploads.create(bytes=size, filename=name, mime_type="application/jsonl", purpose="fine-tune")
    relied_on.conforms(upload)
    expect(upload.status == "pending", "a new upload is pending", came=upload.to_dict())
    made = [scene.client.uploads.parts.create(upload.id, data=part) for part in parts]
    for part in made:
        expect(part.upload_id == upload.id, "a part knows its upload", came=relied_on.conforms(part))
    return upload, [part.id for part in made]


def graders(scene: Scene) -> None:
    """A grader is validated and run: 1 for what is right, 0 for what is not; a faulty one is refused."""
    alpha = scene.client.fine_tuning.alpha.graders
    checked = alpha.validate(grader=_GRADER)
    expect(
        checked.grader is not None and checked.grader.type == "string_check", "it comes back", came=checked.to_dict()
    )
    for said, reward in (("4 mugs", 1.0), ("5 mugs", 0.0)):
        ran = alpha.run(grader=_GRADER, model_sample=said, item={"answer": "4 mugs"})
        expect(ran.reward == reward, f"{said!r} is worth {reward}", came=relied_on.conforms(ran))
    faulty = {**_GRADER, "operation": "smells like"}
    error = refused(lambda: alpha.validate(grader=faulty), BadRequestError)
    expect("operation" in f"{error.param} {error.message}", "the refusal names operation", body=error.body)


CHECKS = (deletions, a_good_file, a_bad_file, an_upload_in_chunks, an_upload_by_hand, graders)
