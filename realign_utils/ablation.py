"""Which pool to choose from: everything, one mechanism, one family, small models, or a mixture?

A small pool has a lower best than a large one whatever it holds, so each pool stands beside *random
pools* of its own size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity
from realign_utils.certificate import certify, with_set
from realign_utils.errors import UserError
from realign_utils.limits import Limit, count_limit, require_feasible
from realign_utils.progress import track
from realign_utils.registry import choose
from realign_utils.search import select


@dataclass(frozen=True)
class Pool:
    """Candidates, and what a set of them must keep.

    Attributes
    ----------
    name : str
    kind : str
        all, mechanism, family, capacity, pool (of the profile), mixed, or random.
    rows : tuple of int
        Of the similarity matrix.
    limits : tuple of Limit
    """

    name: str
    kind: str
    rows: tuple[int, ...]
    limits: tuple[Limit, ...] = ()


def pools_of(
    registry: pd.DataFrame,
    models: Sequence[str],
    k: int,
    *,
    pools: Mapping[str, str | list[str]],
    families: Mapping[str, str | list[str]],
) -> list[Pool]:
    """The pools that are compared; those of fewer than `k` models, and doubles, are left out.

    Parameters
    ----------
    registry : pandas.DataFrame
        All models, those without features too.
    models : sequence of str
        The models that have features.
    k : int
        Size of the sets.
    pools, families : mapping
        Of the profile: queries on the registry, or names.

    Returns
    -------
    list of Pool
        All models, each mechanism, each family of the profile and of the registry, the half of the
        models with the fewest and that with the most parameters, the profile's own pools, and all
        models with no more than half of the set of one mechanism.
    """
    known = registry.loc[list(models)]
    place = {name: row for row, name in enumerate(models)}
    found = [Pool("full registry", "all", tuple(range(len(known))))]
    for name, kind, members in _named_groups(registry, known, pools, families):
        rows = tuple(sorted(place[model] for model in members if model in place))
        if len(rows) >= k and rows not in [pool.rows for pool in found]:
            found.append(Pool(name, kind, rows))
    mixed = Pool("mixed mechanisms", "mixed", found[0].rows, mixing_limits(known["mechanism"], k))
    return [*found, mixed] if has_sets(mixed, k) else found


def _named_groups(
    registry: pd.DataFrame,
    known: pd.DataFrame,
    pools: Mapping[str, str | list[str]],
    families: Mapping[str, str | list[str]],
) -> Iterator[tuple[str, str, pd.Index]]:
    """Name, kind and models of each group."""
    for mechanism, rows in known.groupby("mechanism"):
        yield f"{mechanism} only", "mechanism", rows.index
    for family, which in families.items():
        yield family, "family", choose(registry, which).index
    for family, rows in known.groupby("family"):
        yield family, "family", rows.index
    middle = known["params_m"].median()
    yield f"up to {middle:.3g} M parameters", "capacity", known.index[known["params_m"] <= middle]
    yield f"above {middle:.3g} M parameters", "capacity", known.index[known["params_m"] > middle]
    for name, which in pools.items():
        yield f"pool {name}", "pool", choose(registry, which).index


def mixing_limits(mechanisms: Sequence[str], k: int) -> tuple[Limit, ...]:
    """No more than half of the set, rounded up, of any one mechanism."""
    given, most = list(mechanisms), -(-k // 2)
    return tuple(
        count_limit(
            [row for row, other in enumerate(given) if other == mechanism],
            len(given),
            name=f"at most {most} of {mechanism}",
            at_most=most,
        )
        for mechanism in dict.fromkeys(given)
    )


def has_sets(pool: Pool, k: int) -> bool:
    """Whether any k of a pool keep its limits."""
    try:
        require_feasible(pool.limits, k, pool.rows, len(pool.rows))
    except UserError:
        return False
    return True


def pool_table(
    similarity: np.ndarray,
    pools: Sequence[Pool],
    models: Sequence[str],
    k: int,
    *,
    random_pools: int = 20,
    restarts: int = 500,
    seed: int = 0,
    proof_seconds: float = 10,
) -> pd.DataFrame:
    """The best set of each pool, with its bound, and those of random pools of the same sizes.

    Parameters
    ----------
    similarity : numpy.ndarray, shape (n, n)
        On the proxy on which sets are chosen.
    pools : sequence of Pool
        From `pools_of`.
    models : sequence of str, length n
    k : int
    random_pools : int
        For each size of a pool.
    restarts, seed : int
        Of the search, in random pools as in the others.
    proof_seconds : float
        Time limit of each bound.

    Returns
    -------
    pandas.DataFrame
        Columns pool, kind, candidates, score, upper_bound, proved_optimal (empty for random pools),
        models (space-separated).
    """
    n, rng, rows = len(models), np.random.default_rng(seed), []
    for pool in track(pools, "pools", len(pools)):
        options = {"candidates": pool.rows, "limits": pool.limits, "seed": seed}
        chosen = select(similarity, k, restarts=restarts, **options)
        proof = certify(similarity, chosen, time_limit=proof_seconds)
        proof = with_set(similarity, proof, proof.best)
        listed = " ".join(models[row] for row in proof.indices)
        proved = (proof.score, proof.upper_bound, proof.optimal)
        rows.append((pool.name, pool.kind, len(pool.rows), *proved, listed))
    sizes = sorted({len(pool.rows) for pool in pools} - {n})
    for size in track(sizes, "random pools", len(sizes)):
        for number in range(1, random_pools + 1):
            drawn = rng.choice(n, size, replace=False)
            chosen = select(similarity, k, restarts=restarts, seed=seed, candidates=drawn)
            listed = " ".join(models[row] for row in chosen.indices)
            name = f"random pool {number} of {size}"
            rows.append((name, "random", size, chosen.score, np.nan, None, listed))
    columns = ["pool", "kind", "candidates", "score", "upper_bound", "proved_optimal", "models"]
    return pd.DataFrame(rows, columns=columns)


def judge_pools(
    table: pd.DataFrame, judges: Mapping[str, np.ndarray], models: Sequence[str]
) -> pd.DataFrame:
    """Add the mean of each row's set on each set of images, a column each.

    Parameters
    ----------
    table : pandas.DataFrame
        With the column models.
    judges : mapping of str to numpy.ndarray, each of shape (n, n)
    models : sequence of str, length n

    Returns
    -------
    pandas.DataFrame
    """
    place = {name: row for row, name in enumerate(models)}
    sets = [[place[name] for name in listed.split()] for listed in table["models"]]
    means = {
        name: [mean_similarity(matrix, rows) for rows in sets] for name, matrix in judges.items()
    }
    return table.assign(**means)


def beside_random_pools(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The named pools, each beside the random pools of its size.

    Parameters
    ----------
    table : pandas.DataFrame
        From `judge_pools`.
    columns : sequence of str
        Scores; each gets two columns beside it: ``random_<name>``, the average of the random pools,
        and ``above_<name>``, how many of them score lower.

    Returns
    -------
    pandas.DataFrame
        Without the rows of random pools, but with their number, `random_pools`; no average where
        the pool holds all models.
    """
    drawn = table[table["kind"] == "random"]
    average = table[table["kind"] == "random"].groupby("candidates")[list(columns)].mean()
    named = table[table["kind"] != "random"].reset_index(drop=True)
    beside = average.reindex(named["candidates"]).add_prefix("random_").reset_index(drop=True)
    for name in columns:
        lower = [
            int((drawn.loc[drawn["candidates"] == size, name] < score).sum())
            for size, score in zip(named["candidates"], named[name], strict=True)
        ]
        beside[f"above_{name}"] = lower
    beside["random_pools"] = [
        int((drawn["candidates"] == size).sum()) for size in named["candidates"]
    ]
    return pd.concat([named.drop(columns="models"), beside], axis=1)
