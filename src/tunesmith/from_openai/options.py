"""The options that say where OpenAI is and with which key, and what is refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from tunesmith.errors import InvalidInput
from tunesmith.from_openai.sdk import OPENAI_URL, checked_host

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

# Not from OPENAI_BASE_URL: who is leaving has set that to this service.
openai_url_option = click.option(
    "--openai-base-url", "openai_url", default=OPENAI_URL, show_default=True, help="Where OpenAI's API is."
)
openai_key_option = click.option(
    "--openai-key-file",
    "key_file",
    type=click.Path(path_type=Path),
    help="A file with OpenAI's key (default: the variable OPENAI_API_KEY).",
)


def refuse_itself(service: Service, openai_url: str) -> None:
    """Raises InvalidInput: what is called OpenAI is this very service, or is no address."""
    checked_host(openai_url)
    if urlsplit(openai_url).netloc == urlsplit(service.url).netloc:
        raise InvalidInput(
            "is the service here itself", where="--openai-base-url", mend=f"leave it out to ask {OPENAI_URL}"
        )
