"""What of the server's environment the programs that it starts are given: the ordinary things a program needs to find its
libraries, devices and caches, and what the operator lists. Everything else stays here: a server's environment is where its
secrets are.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Mapping

from tunesmith.contract.environment import PREFIX

_ALWAYS = (
    # who and where
    *(
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TERM",
        "TMPDIR",
        "TEMP",
        "TMP",
        "TZ",
        "XDG_*",
        "LANG",
        "LANGUAGE",
        "LC_*",
    ),
    # Python and native libraries
    *(
        "PYTHON*",
        "VIRTUAL_ENV",
        "CONDA_*",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "TORCH*",
        "PYTORCH*",
        "TRITON_*",
        "CC",
        "CXX",
    ),
    # devices
    *("CUDA*", "NVIDIA*", "NCCL_*", "CUBLAS_*", "CUDNN_*", "HIP_*", "HSA_*", "ROCR_*", "ROCM_*"),
    # threads and memory
    *("OMP_*", "MKL_*", "KMP_*", "GOMP_*", "OPENBLAS_*", "NUMEXPR_*", "ONEDNN_*", "DNNL_*", "ATEN_*", "MALLOC_*"),
    # caches and how they are filled
    *("HF_*", "HUGGINGFACE_*", "TRANSFORMERS_*", "TOKENIZERS_*", "DATASETS_*"),
    *("SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)
# Among the names above these hold secrets all the same; whoever wants them passed on lists them.
_SECRET_NAME = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/\s]*@")
"""A user in an address, as in a proxy's that wants a password."""


def inherited(listed: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that a program gets from the server.

    Args:
        listed: names that the operator wants passed on, and patterns such as ``WANDB_*``. The server's own
            ``TUNESMITH_`` variables are never passed on.
        environ: what there is; by default this process's environment.
    """
    chosen = tuple(listed)
    return {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if not name.startswith(PREFIX)
        and (_matches(name, chosen) or (_matches(name, _ALWAYS) and _is_plain(name, value)))
    }


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_plain(name: str, value: str) -> bool:
    return not _SECRET_NAME.search(name) and not _SECRET_VALUE.search(value)
