"""How far the votes of one variant repeat another's, from what they conclude alike.

Symbols as in `votes`: V variants, P prompts; a *cell* is one distinct conclusion to one prompt, C of them. Pure NumPy.
"""

import numpy as np

from nex_merge.one_thread import on_one_thread


@on_one_thread
def similarity(
    support: np.ndarray, asked: np.ndarray, cell_prompt: np.ndarray, weight: np.ndarray, prior: float = 0.0
) -> np.ndarray:
    """Cosine of the conclusions of every pair of variants over the prompts that both were asked, float64 [V, V].

    `support`, float64 [V, C]: share of a variant's samples in each cell. `asked`, bool [V, P]. `cell_prompt`, int64
    [C]. `weight`, float64 [C]: what agreement in a cell shows. `prior` is added to the denominator.
    """
    variant, cell = np.nonzero(support)
    squares = support[variant, cell] ** 2 * weight[cell]
    place = variant * asked.shape[1] + cell_prompt[cell]
    by_prompt = np.bincount(place, squares, minlength=asked.size).reshape(asked.shape)
    shared = (support > 0).sum(axis=0) > 1  # a cell with one supporter is in no pair
    part = support[:, shared] * np.sqrt(weight[shared])
    norms = by_prompt @ asked.T  # of u over the prompts that v was asked
    return (part @ part.T) / np.maximum(np.sqrt(norms * norms.T) + prior, 1e-12)


def beyond_usual(similarity: np.ndarray, screened: np.ndarray) -> np.ndarray:
    """What two variants have in common beyond what either has with most others, float64 [V, V], 1 on the diagonal.

    (s - b) / (1 - b), at least 0, where b is the root of both variants' median similarities. `screened`, float64 [V]:
    how much each counts in the median, so that copies are not what is usual.
    """
    count = len(similarity)
    order = np.argsort(similarity, axis=1, kind="stable")
    weights = np.where(order == np.arange(count)[:, None], 0.0, screened[order])
    below = np.cumsum(weights, axis=1)
    middle = (below >= below[:, -1:] / 2).argmax(axis=1)
    usual = similarity[np.arange(count), order[np.arange(count), middle]]
    expected = np.sqrt(np.outer(usual, usual))
    found = np.clip((similarity - expected) / np.maximum(1 - expected, 1e-12), 0, 1)
    np.fill_diagonal(found, 1.0)
    return found
