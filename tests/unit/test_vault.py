"""Secrets at rest."""

import pytest
from pydantic import SecretStr

from jobsched.db.vault import Vault
from jobsched.errors import SecretsUnreadable

KEY = SecretStr("k" * 32)
OTHER = SecretStr("o" * 32)


def test_what_is_sealed_can_be_opened_and_read_by_nobody_else() -> None:
    sealed = Vault(KEY).seal("whsec_abc", "one")
    assert sealed.startswith("v1:")
    assert "whsec" not in sealed
    assert Vault(KEY).open(sealed, "one") == "whsec_abc"


def test_the_same_text_is_never_sealed_the_same() -> None:
    vault = Vault(KEY)
    assert len({vault.seal("text", "one") for _ in range(100)}) == 100


def test_without_a_key_texts_are_kept_as_they_are_and_stay_readable_with_one() -> None:
    assert Vault(None).seal("whsec_abc", "one") == "whsec_abc"
    assert Vault(None).open("whsec_abc", "one") == "whsec_abc"
    assert Vault(KEY).open("whsec_abc", "one") == "whsec_abc"


@pytest.mark.parametrize(
    ("vault", "said"),
    [(Vault(None), "JOBSCHED_SECRET_KEY is not set"), (Vault(OTHER), "another JOBSCHED_SECRET_KEY")],
)
def test_a_wrong_key_is_told_from_a_missing_one(vault: Vault, said: str) -> None:
    with pytest.raises(SecretsUnreadable, match=said):
        vault.open(Vault(KEY).seal("whsec_abc", "one"), "one")


@pytest.mark.parametrize("part", range(2))
def test_a_text_in_anothers_place_or_a_damaged_one_is_refused(part: int) -> None:
    vault = Vault(KEY)
    sealed = vault.seal("whsec_abc", "one")
    damaged, purpose = [(sealed, "two"), (sealed[:-5] + "AAAA=", "one")][part]
    with pytest.raises(SecretsUnreadable, match="damaged") as caught:
        vault.open(damaged, purpose)
    assert "whsec" not in str(caught.value)


@pytest.mark.parametrize("stored", ["v1:", "v1:x", "v1::", "v1:{}:", "v1:{}:!!", "v1:{}:AAAA"])
def test_nonsense_is_refused(stored: str) -> None:
    vault = Vault(KEY)
    key_id = vault.seal("", "one").split(":")[1]
    with pytest.raises(SecretsUnreadable):
        vault.open(stored.format(key_id), "one")
