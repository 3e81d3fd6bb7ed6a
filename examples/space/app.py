"""The page of `diffinst serve` as a Space of Hugging Face's hub: open to all, with tight limits.

A Space has no token of ours: who may see it may use it. What visitors upload lies in a temporary
folder that goes with the process. DIFFINST_MODEL names another model than nano-nuclei.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import uvicorn

from diffinst import DiffusionInst
from diffinst.serve.app import create_app
from diffinst.serve.limits import Limits

LIMITS = Limits(
    upload_bytes=10_000_000,
    pixels=4_000_000,
    images=10,
    session_bytes=200_000_000,
    session_days=0.5,
    iterations=0,  # nobody trains: it would take the machine from all others
    seconds=20.0,
    steps=8,
    proposals=500,
    noises=4,
    prompts=16,
    waiting=8,
    rate=20.0,  # all visitors come from the address of the hub's proxy
    burst=200,
    cache_bytes=500_000_000,
)


def main() -> None:
    """Serve until stopped."""
    name = os.environ.get("DIFFINST_MODEL", "nano-nuclei")
    model = DiffusionInst.from_pretrained(name)
    host, port = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "7860"))
    # uvicorn hands the signal on when it has ended: the folder has to go first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as folder:
        app = create_app({Path(name).name: model}, Path(folder), hosts=None, limits=LIMITS)
        uvicorn.run(
            app, host=host, port=port, log_level="warning", server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=5, limit_concurrency=64,
        )  # fmt: skip


if __name__ == "__main__":
    main()
