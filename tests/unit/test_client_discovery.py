"""Where the client finds its server and key."""

from pathlib import Path

import pytest

from jobsched.client.discovery import DEFAULT_URL, data_dir, find_server


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty data folder, and no variable that says anything else."""
    for name in ("JOBSCHED_URL", "JOBSCHED_API_KEY", "JOBSCHED_URL_FILE", "JOBSCHED_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JOBSCHED_DATA_DIR", str(tmp_path))
    return tmp_path


def local_up(folder: Path) -> None:
    (folder / "url").write_text("http://127.0.0.1:8123\n")
    (folder / "api-key").write_text("local-admin-key\n")


def test_without_anything_it_is_the_default_address_and_no_key():
    assert find_server(None, None) == (DEFAULT_URL, None)


def test_a_local_up_gives_address_and_key(folder):
    local_up(folder)
    assert find_server(None, None) == ("http://127.0.0.1:8123", "local-admin-key")


def test_arguments_win_over_variables_and_these_over_the_folder(folder, monkeypatch):
    local_up(folder)
    monkeypatch.setenv("JOBSCHED_URL", "https://jobs.example.com/base/")
    monkeypatch.setenv("JOBSCHED_API_KEY", "from-environment")
    assert find_server(None, None) == ("https://jobs.example.com/base", "from-environment")
    assert find_server("http://other:1", "mine") == ("http://other:1", "mine")


def test_the_local_admin_key_is_sent_to_its_own_server_only(folder, monkeypatch):
    local_up(folder)
    assert find_server("http://localhost:8123/", None)[1] == "local-admin-key"
    for other in ("http://127.0.0.1:8080", "https://127.0.0.1:8123", "http://example.com:8123"):
        assert find_server(other, None)[1] is None


def test_a_key_without_an_address_in_the_folder_is_not_used(folder):
    (folder / "api-key").write_text("local-admin-key\n")
    assert find_server(None, None) == (DEFAULT_URL, None)


def test_a_variable_may_name_a_file(monkeypatch, tmp_path):
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("JOBSCHED_API_KEY_FILE", str(tmp_path / "secret"))
    assert find_server(None, None)[1] == "from-file"
    monkeypatch.setenv("JOBSCHED_API_KEY", "direct")
    with pytest.raises(ValueError, match="keep one"):
        find_server(None, None)
    monkeypatch.delenv("JOBSCHED_API_KEY")
    monkeypatch.setenv("JOBSCHED_API_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="No such file"):
        find_server(None, None)


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://x", "http://", "http://x:99999", "http://[", "http://x/?a=1"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match=r"write it like https://"):
        find_server(url, None)


def test_a_password_in_the_address_is_refused_without_showing_it():
    with pytest.raises(ValueError) as caught:
        find_server("https://me:hunter2@example.com", None)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["two\nlines", "with space", "ключ"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(ValueError, match="API key"):
        find_server(None, key)


def test_the_default_folder_is_that_of_the_configuration(monkeypatch):
    from jobsched.config import default_data_dir

    monkeypatch.delenv("JOBSCHED_DATA_DIR")
    assert data_dir() == default_data_dir()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert data_dir() == default_data_dir() == Path("/somewhere/jobsched")
