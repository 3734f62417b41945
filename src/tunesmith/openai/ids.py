"""Ids as OpenAI's clients know them: the same records under other prefixes, so that one can be told from the other by eye.

``file-01k9...`` is the upload ``upl_01k9...``, ``ftjob-01k9...`` the run ``run_01k9...``, ``ftckpt_01k9...`` the checkpoint
``ckpt_01k9...``. Both are understood wherever this door takes an id. Pure.
"""

from __future__ import annotations

_FILE, _UPLOAD = "file-", "upl_"
_JOB, _RUN = "ftjob-", "run_"
_CHECKPOINT_HERE, _CHECKPOINT = "ftckpt_", "ckpt_"


def file_id(upload_id: str) -> str:
    return _FILE + upload_id.removeprefix(_UPLOAD)


def upload_id(file_id: str) -> str:
    """The upload that a file is; an upload's own id stays as it is."""
    return _UPLOAD + file_id.removeprefix(_FILE) if file_id.startswith(_FILE) else file_id


def job_id(run_id: str) -> str:
    return _JOB + run_id.removeprefix(_RUN)


def run_id(job_id: str) -> str:
    """The run that a job is; a run's own id stays as it is."""
    return _RUN + job_id.removeprefix(_JOB) if job_id.startswith(_JOB) else job_id


def checkpoint_record_id(checkpoint_id: str) -> str:
    """The checkpoint's own id; that one stays as it is."""
    here = checkpoint_id.startswith(_CHECKPOINT_HERE)
    return _CHECKPOINT + checkpoint_id.removeprefix(_CHECKPOINT_HERE) if here else checkpoint_id


def checkpoint_id(own_id: str) -> str:
    return _CHECKPOINT_HERE + own_id.removeprefix(_CHECKPOINT)
