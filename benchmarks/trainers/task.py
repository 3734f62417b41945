"""What all trainers are asked to do."""

import json
from dataclasses import dataclass
from pathlib import Path

BATCH = 8
RANK, ALPHA = 16, 32
LEARNING_RATES = {"lora": 1e-3, "sft": 2e-5}
SEED = 42


@dataclass(frozen=True, kw_only=True)
class Task:
    model: Path
    rows: list
    """Chats, each ``{"messages": [...]}``."""
    steps: int
    method: str
    """``lora`` or ``sft``, which trains all weights."""

    @property
    def every(self):
        """Steps between two log lines. The first ones are not timed."""
        return max(2, self.steps // 6)

    @property
    def learning_rate(self):
        return LEARNING_RATES[self.method]

    def write_rows(self, folder):
        """Write the rows as JSON Lines, and return the file's path."""
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return path
