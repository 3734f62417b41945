"""Policy files: what is wrong with one is said in full, and a broken one is never used in place of another."""

from __future__ import annotations

import pytest

from tunesmith_workers.deid import KINDS, BadPolicy, UnknownPolicy
from tunesmith_workers.deid.policy import SHIPPED, load_policy, policy_files, read_policy


def faults_of(folder, content: str) -> dict[str, str]:
    path = folder / "own.yaml"
    path.write_text(content, "utf-8")
    policy, faults = read_policy(path)
    assert (policy is None) == bool(faults)
    return {fault.where: f"{fault.message}; {fault.mend}" for fault in faults}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_policies_are_right_and_complete(path):
    """Each explains itself and treats every kind."""
    policy, faults = read_policy(path)
    assert not faults
    assert set(policy.kinds) == set(KINDS)
    assert path.read_text().startswith("# ")


def test_all_faults_are_named_with_the_nearest_right_name(tmp_path):
    """Nobody mends a file one fault at a time."""
    found = faults_of(
        tmp_path,
        "id: other\nverzion: 2\nlocale: zh\nkinds:\n  PERSN: {action: redact}\n  PHONE: {action: hide}\n"
        "  EMAIL: {action: mask, frist: 2}\n  IP: {action: mask, first: -1, character: ab}\n  SSN: redact\n",
    )
    assert "did you mean version?" in found["verzion"]
    assert "is missing" in found["version"]
    assert "own" in found["id"]
    assert "zh-CN" in found["locale"]
    assert "did you mean PERSON?" in found["kinds.PERSN"]
    assert "replace" in found["kinds.PHONE.action"]
    assert "did you mean first?" in found["kinds.EMAIL.frist"]
    assert "0 to 64" in found["kinds.IP.first"]
    assert "one character" in found["kinds.IP.character"]
    assert "must be a mapping" in found["kinds.SSN"]
    assert len(found) == 10


@pytest.mark.parametrize(
    "content",
    ["", "- a", "id: [", "id: own\nid: own", "a: &a [1]\nb: *a", "kinds: {}", "id: own\nversion: 1\nkinds: {PERSON: {action: [x]}}",
     "id: own\nversion: 1\nkinds: {? [a] : b}", "x" * 100_000, "[" * 5000, "\0", "id: !!python/object:os.system own"],
)  # fmt: skip
def test_hostile_files_are_faults(tmp_path, content):
    """Never an exception, and never a policy."""
    assert faults_of(tmp_path, content)


def test_bytes_that_are_no_text(tmp_path):
    """A file that is not UTF-8 is a fault too."""
    (tmp_path / "own.yaml").write_bytes(b"\xff\xfe\xfa")
    assert read_policy(tmp_path / "own.yaml")[1]


def test_a_version_stays_what_was_written(tmp_path):
    """1.10 is not 1.1."""
    (tmp_path / "own.yaml").write_text("id: own\nversion: 1.10\nkinds: {PERSON: {action: redact}}\n")
    assert load_policy("own", tmp_path).version == "1.10"


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path):
    """Among shipped and own ones."""
    with pytest.raises(UnknownPolicy) as refused:
        load_policy("defualt", tmp_path)
    assert refused.value.mend == "did you mean default?"
    with pytest.raises(UnknownPolicy):
        load_policy("../../etc/passwd", tmp_path)


def test_an_own_policy_goes_before_a_shipped_one(tmp_path):
    """Also when it is broken: then there is an error, and not the other policy."""
    (tmp_path / "default.yaml").write_text("id: default\nversion: mine\nkinds: {PERSON: {action: redact}}\n")
    assert load_policy("default", tmp_path).version == "mine"
    (tmp_path / "default.yaml").write_text("id: default\n")
    with pytest.raises(BadPolicy, match="kinds"):
        load_policy("default", tmp_path)
    assert set(policy_files(tmp_path)) == {"default", "mask", "redact"}
    assert set(policy_files(None)) == set(policy_files(tmp_path / "nowhere"))
