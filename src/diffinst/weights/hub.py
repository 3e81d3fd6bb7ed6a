"""Model folders on Hugging Face's hub: how they get there."""

from __future__ import annotations

from pathlib import Path

from diffinst.io.one_line import first_line
from diffinst.weights.card import CARD_FILE, is_ours


class HubError(ValueError):
    """A model could not be uploaded: says which and why."""


def push(
    folder: Path,
    hub_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload a diffinst model",
) -> str:
    """Upload a model folder; the repository is made if needed, a card that a person wrote stays.

    Args:
        folder: From `store.save`.
        hub_id: `owner/name`.
        private: Of a new repository; None: as the owner's settings say.
        token: Of the hub; None: the one of `hf auth login`, or HF_TOKEN.
        message: Of the commit.

    Returns:
        The address of the repository.

    Raises:
        HubError: Not logged in, not allowed, no such owner, no network, or a name of another form.
    """
    from huggingface_hub import HfApi

    if hub_id.count("/") != 1:
        raise HubError(f"'{hub_id}' is no hub id; give owner/name")
    api = HfApi(token=token)
    try:
        address = str(api.create_repo(hub_id, private=private, exist_ok=True))
        keep = api.file_exists(hub_id, CARD_FILE) and not is_ours(
            Path(api.hf_hub_download(hub_id, CARD_FILE)).read_text("utf-8", errors="replace")
        )
        api.upload_folder(
            repo_id=hub_id,
            folder_path=folder,
            commit_message=message,
            ignore_patterns=[CARD_FILE] if keep else None,
        )
    except Exception as error:  # what has no network raises differs from version to version
        reason = first_line(error)
        raise HubError(
            f"'{hub_id}' could not be uploaded ({reason}); log in with `hf auth login` or give a "
            "token that may write there"
        ) from error
    return address
