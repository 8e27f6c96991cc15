"""The one kind of error that a user can mend: a single line that says how."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A user's mistake: shown as one line, without a traceback, with exit code 2."""


KINDS = ("UserError", "NoNetwork", "Damaged", "DeviceLost")
"""Names of the class and of all its subclasses: a notebook's kernel tells no more of an error."""


class NotebookFailed(Exception):
    """A notebook ended in an error or its kernel died; the message says where and what to do."""


def unknown(what: str, value: object, allowed: Iterable[object]) -> UserError:
    """Describe a name that is not among the allowed ones.

    Parameters
    ----------
    what : str
        What kind of name it is, e.g. ``"model"`` or ``"parameter"``.
    value : object
        The name that was given.
    allowed : iterable of object
        The names that would have been accepted.

    Returns
    -------
    UserError
        To be raised by the caller; names the nearest match where there is one, and all the
        allowed names where they are few.
    """
    names = [str(name) for name in allowed]
    # Without regard to case, since K is near to k; of names alike but for their case the last.
    spelled = {name.lower(): name for name in names}
    nearest = get_close_matches(str(value).lower(), spelled, n=1, cutoff=0.5)
    hint = f"; did you mean {spelled[nearest[0]]!r}?" if nearest else ""
    choices = (
        f"; allowed: {', '.join(names)}" if len(names) <= 12 else f"; {len(names)} are allowed"
    )
    return UserError(f"unknown {what} {str(value)!r}{hint}{choices}")


def unknown_estimator(value: object, allowed: Iterable[object]) -> UserError:
    """As `unknown`, but by the name alone "biased" would be the nearest to "unbiased"."""
    if str(value).lower() != "unbiased":
        return unknown("estimator", value, allowed)
    return UserError(
        f"unknown estimator {str(value)!r}; CKA of the unbiased HSIC is 'debiased' here; "
        f"allowed: {', '.join(map(str, allowed))}"
    )
