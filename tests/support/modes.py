"""Who may read what lies on the disk. Asserts nothing."""

from __future__ import annotations

from pathlib import Path


def readable_by_others(folder: Path) -> list[str]:
    """Everything from ``folder`` downwards that group or others may use in any way, with its mode. Links are not followed."""
    found = [(path, path.lstat().st_mode & 0o777) for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [f"{path}: {mode:o}" for path, mode in found if mode & 0o077]
