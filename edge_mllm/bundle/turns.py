"""A chat template as the pieces that it writes around what is said, for devices that have no template language."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UserStart:
    """How a user's turn begins: ``before``, ``picture`` for each of its pictures, ``before_text``, then the text.

    In a conversation with a system message ``before_system`` and the message come first.
    """

    before_system: str = ""
    before: str = ""
    picture: str = ""
    """With the template's placeholder in it; "" in the beginning of a turn without pictures."""
    before_text: str = ""


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Pieces of conversations in which user and model take turns and the user has the last word."""

    first: UserStart
    first_pictures: UserStart
    system: UserStart | None
    """The first turn after a system message; None where the template takes none."""
    system_pictures: UserStart | None
    later: UserStart
    later_pictures: UserStart
    answer: str
    """After an earlier user's text, before the model's reply."""
    ask: str
    """After the last user's text."""
    trims_user: bool = False
    """Whether the template takes white space off the ends of what users say."""
    trims_reply: bool = False
    trims_system: bool = False
