"""``SUPABASE_URL`` is made uniform, or refused with what to do; a key that cannot be one is named."""

from __future__ import annotations

import pytest

from companion.settings import Settings, SettingsError

pytestmark = pytest.mark.unit
KEY = {"SUPABASE_SECRET_KEY": "sb_secret_s3cret"}
REF = "abcdefghijklmnopqrsu"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://abc.supabase.co", "https://abc.supabase.co"),
        ("https://abc.supabase.co/", "https://abc.supabase.co"),
        ("https://abc.supabase.co///", "https://abc.supabase.co"),
        ("https://abc.supabase.co/rest/v1", "https://abc.supabase.co"),
        ("https://abc.supabase.co/rest/v1/", "https://abc.supabase.co"),
        ("https://abc.supabase.co/rest/v1/profiles", "https://abc.supabase.co"),
        ("https://abc.supabase.co/auth/v1/", "https://abc.supabase.co"),
        ("https://abc.supabase.co/storage/v1/s3", "https://abc.supabase.co"),
        ("HTTPS://ABC.Supabase.CO/REST/V1/", "https://abc.supabase.co"),
        ("https://abc.supabase.co:443", "https://abc.supabase.co:443"),
        ("http://localhost:54321", "http://localhost:54321"),
        ("http://[::1]:54321/", "http://[::1]:54321"),
        ("http://127.0.0.1:54321/rest/v1", "http://127.0.0.1:54321"),
        ("https://db.project.org/supabase/rest/v1/", "https://db.project.org/supabase"),
    ],
)
def test_an_address_is_made_uniform(given: str, used: str) -> None:
    assert Settings.from_env(KEY | {"SUPABASE_URL": f" {given}\n"}).supabase_url == used


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            f"https://supabase.com/dashboard/project/{REF}",
            rf"dashboard's address\. Set it to https://{REF}.supabase.co",
        ),
        (f"https://app.supabase.com/project/{REF}/settings/api", f"dashboard's address.*https://{REF}.supabase.co"),
        ("https://supabase.com/dashboard/projects", "dashboard's address.*PROJECT"),
        ("https://SUPABASE.com", "dashboard's address"),
        ("https://your-project.supabase.co", "placeholder"),
        ("https://YOUR_PROJECT_REF.supabase.co/", "placeholder"),
        ("https://yourproject.supabase.co", "placeholder"),
        ("https://PROJECT.supabase.co", "placeholder"),
        ("https://project-ref.supabase.co", "placeholder"),
        ("https://<project>.supabase.co", "placeholder"),
        ("https://${PROJECT}.supabase.co", "placeholder"),
        ("https://xxxxxxxxxxxxxxxxxxxx.supabase.co", "placeholder"),
        ("https://abc...supabase.co", "placeholder"),
        ("https://supabase.example.com", "placeholder"),
        ("https://user:s3cret@abc.supabase.co", "user name or a password"),
        ("https://s3cret@abc.supabase.co", "user name or a password"),
        ("https://abc.supabase.co/?apikey=s3cret", r"end before the \? or #"),
        ("https://abc.supabase.co/#s3cret", r"end before the \? or #"),
        ("https://db.abc.supabase.co", "database's address. Set it to https://abc.supabase.co"),
        ("postgresql://postgres:s3cret@db.abc.supabase.co:5432/postgres", "database's address"),
        ("http://abc.supabase.co", "must be https://abc.supabase.co"),
        ("https://abc.supabase.co/project/x", "must be https://abc.supabase.co"),
        ("https://abc.supabase.co:s3cret", "is no address"),
        ("https://abc.supabase.co:99999", "is no address"),
        ("https://[x", "is no address"),
        ("https://abc. supabase.co", "is no address"),
        ("https://", "must begin with https://"),
        ("abc.supabase.co", "must begin with https://"),
        (REF, "must begin with https://"),
        ("sb_secret_s3cret", "must begin with https://"),
        ("ftp://abc.supabase.co", "must begin with https://"),
    ],
)
def test_what_is_no_address_of_a_project_is_refused(given: str, says: str) -> None:
    with pytest.raises(SettingsError, match=f"^SUPABASE_URL .*{says}") as problem:
        Settings.from_env(KEY | {"SUPABASE_URL": given})
    assert "s3c" not in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("name", ["SUPABASE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY"])
@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("sb_secret_...", "placeholder"),
        ("<key>", "placeholder"),
        ("your-secret-key", "placeholder"),
        ("'s3cret'", "quotation mark"),
        ("s3cr\u200bet", r"U\+200B"),
        ("s3cret s3cret", "a space"),
        ("sb_publishable_s3cret", "public"),
    ],
)
def test_a_key_that_cannot_be_one_is_named(name: str, key: str, says: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} .*{says}") as problem:
        Settings.from_env({"SUPABASE_URL": "https://abc.supabase.co", name: key})
    assert "s3c" not in str(problem.value)
