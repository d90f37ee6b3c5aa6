"""Files of the Hugging Face Hub, by its own client: downloaded once, then from its cache."""

from dataclasses import dataclass, replace
from pathlib import Path

from xlgpt.errors import ModelNotFound

OFFLINE = "Offline, `--model tiny`, `--model random:gpt2` and `--model FOLDER` work."
ACCESS = "log in with `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True)
class Repository:
    """A repository at a branch or a commit.

    problem: why the Hub cannot be asked: then the cache has to do, and this is the failure where it does not.
    """

    name: str
    revision: str
    problem: str = ""

    def fetch(self, file: str) -> Path:
        """A file, in a folder of the cache that is the commit's own. Raises ModelNotFound."""
        found = self.find(file)
        if found:
            return found
        raise ModelNotFound(f"{self.name} holds no {file}, and xlgpt needs it; a GPT-2 in the Hub's layout has one.")

    def find(self, file: str) -> Path | None:
        """A file; None where there is none of that name. Raises ModelNotFound."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError

        only_cached = bool(self.problem)
        try:
            return Path(hf_hub_download(self.name, file, revision=self.revision, local_files_only=only_cached))
        except LocalEntryNotFoundError as e:
            raise ModelNotFound(self.problem or _unreachable(self.name, e)) from e
        except EntryNotFoundError:
            return None
        except GatedRepoError as e:
            raise ModelNotFound(_gated(self.name)) from e
        except Exception as e:  # whatever else the Hub's client and the network beneath it may raise
            raise ModelNotFound(_failed(self.name, e)) from e


def repository(name: str, commit: str | None = None) -> Repository:
    """A repository at a commit, or at the newest of its main branch: all its files belong together.

    Raises ModelNotFound.
    """
    asked = Repository(name, commit or "main", _problem(name, commit))
    return replace(asked, revision=asked.fetch("config.json").parent.name)  # the cache has a folder for each commit


def _problem(name: str, commit: str | None) -> str:
    """What keeps the Hub from telling the newest commit; of a commit in the cache, nothing is asked.

    It is one HEAD that waits for 10 s (HF_HUB_ETAG_TIMEOUT). The client's own ways to a commit wait without end for a
    Hub that says nothing, or ask again for minutes.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        if not (commit and isinstance(try_to_load_from_cache(name, "config.json", revision=commit), str)):
            get_hf_file_metadata(hf_hub_url(name, "config.json", revision=commit))
    except GatedRepoError:
        return _gated(name)
    except RepositoryNotFoundError:
        return f"There is no model {name!r} on the Hub, and no folder of that name here; if it is private, {ACCESS}."
    except EntryNotFoundError:
        return f"{name} holds no config.json, so it is no model that xlgpt can read."
    except OfflineModeIsEnabled:
        return f"{name} is not in the cache and the Hub cannot be reached: HF_HUB_OFFLINE is set. {OFFLINE}"
    except ValueError as e:  # a name that none can have
        return _failed(name, e)
    except Exception as e:  # whatever else the Hub's client and the network beneath it may raise
        return _unreachable(name, e)
    return ""


def _gated(name: str) -> str:
    return f"{name} is gated: ask for access on its page on the Hub, then {ACCESS}."


def _unreachable(name: str, error: Exception) -> str:
    return f"{name} is not in the cache and the Hub cannot be reached ({_reason(error)}). {OFFLINE}"


def _failed(name: str, error: Exception) -> str:
    return f"{name} could not be downloaded: {_reason(error)}. {OFFLINE}"


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
