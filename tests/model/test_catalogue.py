"""Where models are found: what becomes a download, what is said of it, and what never is one."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from bothways.errors import ModelNotFoundError
from bothways.model.catalogue import CATALOGUE, HUB_FILES, INCLUDED, find_model, hub_revision
from bothways.progress import Reporter

COMMIT = "0123456789abcdef" * 2 + "01234567"


class Heard(Reporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub, which has every model; keeps what it is asked for. No test reaches the real one."""
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options))
        folder = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr("bothways.model.catalogue._in_package", lambda _: None)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize(
    "name", ["runs/intents", "runs/intents/", "./runs/intents", "a/b/c", "no-such", "", "a b/c", "a--b/c"]
)
def test_a_path_that_is_not_there_is_no_download(hub, name):
    with pytest.raises(ModelNotFoundError, match=r"not a directory here|is a file"):
        find_model(name) if name else find_model("missing")
    assert hub == []


def test_the_error_says_how_a_model_of_the_hub_is_named(hub):
    with pytest.raises(
        ModelNotFoundError, match=r"no model 'runs/intents': not a directory here, .*write hf:runs/intents$"
    ):
        find_model(Path("runs/intents"))
    with pytest.raises(ModelNotFoundError, match=r"electra-small"):
        find_model("electra-small")


@pytest.mark.parametrize(
    ("name", "repository", "revision"),
    [
        ("hf:owner/name", "owner/name", None),
        ("hf://owner/name", "owner/name", None),
        ("hf:owner/name@v2", "owner/name", "v2"),
        (f"hf:owner/name@{COMMIT}", "owner/name", COMMIT),
        ("roberta-base", CATALOGUE["roberta-base"].hub, None),
    ],
)
def test_a_download_is_announced_with_its_revision(hub, name, repository, revision):
    heard = Heard()
    directory = find_model(name, reporter=heard)
    ((asked, options),) = hub
    assert (asked, options.get("revision")) == (repository, revision)
    assert "local_files_only" not in options
    assert (
        heard.lines[0]
        == f"{repository}: downloading files that are not in the cache from the Hugging Face hub (huggingface.co)"
    )
    assert heard.lines[1] == f"{repository}: revision {COMMIT}, in {directory}"
    assert hub_revision(directory) == COMMIT


def test_without_a_reporter_a_download_is_logged(hub, caplog):
    find_model("hf:owner/name")
    assert any(COMMIT in line for line in caplog.messages)


def test_a_directory_of_that_name_is_no_download(hub, tmp_path):
    (tmp_path / "runs" / "intents").mkdir(parents=True)
    assert find_model("runs/intents") == Path("runs/intents")
    assert hub_revision(Path("runs/intents")) is None
    assert hub == []


def test_offline_only_the_cache_is_asked(hub, monkeypatch):
    assert find_model("hf:owner/name", offline=True).is_dir()
    assert hub[0][1]["local_files_only"] is True

    def nothing(name, **options):
        raise LocalEntryNotFoundError("nothing")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    with pytest.raises(ModelNotFoundError, match="'hf:owner/name' not found; tried: hub owner/name: not in the cache"):
        find_model("hf:owner/name", offline=True)
    with pytest.raises(ModelNotFoundError, match=r"hub FacebookAI/roberta-base: not in the cache"):
        find_model("roberta-base", offline=True)


@pytest.mark.parametrize(
    "name", ["hf:", "hf:name", "hf:/name", "hf:owner/", "hf:owner/name/x", "hf:../name", "hf:owner/na me"]
)
def test_a_name_that_the_hub_cannot_have_is_refused(hub, name):
    with pytest.raises(ModelNotFoundError, match="expected hf:owner/name, or hf:owner/name@revision"):
        find_model(name)
    assert hub == []


@pytest.mark.parametrize("error", [HFValidationError("Cannot have -- or .."), ConnectionError("gone"), TimeoutError()])
def test_what_goes_wrong_at_the_hub_is_one_line(hub, monkeypatch, error):
    def fails(name, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(ModelNotFoundError, match=r"^model 'hf:a--b/c' not found; tried: hub a--b/c: not [^\n]*$"):
        find_model("hf:a--b/c")


def test_real_names_that_are_invalid_do_not_end_in_a_traceback():
    with pytest.raises(ModelNotFoundError, match="not a name of the hub"):
        find_model("hf:a--b/c", offline=True)


def test_what_decides_ids_and_vectors_is_fetched_and_nothing_that_runs():
    for name in ("added_tokens.json", "modules.json", "special_tokens_map.json", "config_sentence_transformers.json"):
        assert name in HUB_FILES
    assert not any(name.endswith((".py", ".bin", ".pt", ".pkl", ".onnx", ".h5")) for name in HUB_FILES)


def test_a_name_that_no_file_can_have_is_not_found():
    with pytest.raises(ModelNotFoundError, match=r"^x+: cannot be read \(File name too long\)$"):
        find_model("x" * 5000)


@pytest.mark.parametrize("name", INCLUDED)
def test_an_included_model_is_no_download(hub, name):
    with pytest.raises(ModelNotFoundError, match=rf"the included model '{name}' is not installed: pip install"):
        find_model(name)
    assert hub == []


def test_a_base_model_that_is_on_no_hub_says_how_to_get_it(hub):
    with pytest.raises(ModelNotFoundError, match=r"bothways_base: not installed \(pip install bothways-base"):
        find_model("bothways-base")
    assert hub == []
