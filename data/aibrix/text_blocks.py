"""Prompts to prefix blocks: chained hashes of every so many characters, so that equal ids mean equal prefixes."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

__all__ = ["BLOCK_TOKENS", "characters_per_block", "prompt_text", "text_blocks", "text_id"]

BLOCK_TOKENS: Final = 16  # as vLLM and AIBrix cut their prefixes
ID_BYTES: Final = 8
ENCODING: Final = "utf-8"


def prompt_text(messages: Any) -> str | None:
    r"""Return the text of a prompt: as it is, or of its messages one after the other; None where there is none.

    >>> prompt_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
    'Be brief.\nWhy?'
    """
    if isinstance(messages, str):
        return messages
    if not isinstance(messages, list) or not messages:
        return None
    contents = [message.get("content") if isinstance(message, dict) else None for message in messages]
    texts = [content for content in contents if isinstance(content, str)]
    return "\n".join(texts) if len(texts) == len(contents) else None


def text_id(text: str) -> str:
    """Name a text by its content.

    >>> text_id("")
    'e4a6a0577479b2b4'
    """
    return blake2b(text.encode(ENCODING, "surrogatepass"), digest_size=ID_BYTES).hexdigest()


def characters_per_block(lengths: Iterable[tuple[int, int]]) -> int:
    """Return how many characters stand for a block of tokens, by the characters and tokens of some prompts.

    >>> characters_per_block([(1400, 1040), (1390, 1042)])
    21
    """
    known = [(characters, tokens) for characters, tokens in lengths if characters > 0 and tokens > 0]
    if not known:
        return 4 * BLOCK_TOKENS
    ratio = sum(characters for characters, _ in known) / sum(tokens for _, tokens in known)
    return max(1, round(BLOCK_TOKENS * ratio))


def text_blocks(text: str, characters: int, most: int) -> list[int]:
    """Return the ids of the whole blocks of a text, at most so many: the same up to where two texts first differ.

    >>> a, b = text_blocks("abcdXY", 2, 9), text_blocks("abcdZ", 2, 9)
    >>> len(a), len(b), a[:2] == b[:2]
    (3, 2, True)
    """
    ids, state = [], b""
    for end in range(characters, min(len(text), most * characters) + 1, characters):
        # A lone half of a surrogate pair is no character that UTF-8 knows, but JSON can name it.
        piece = text[end - characters : end].encode(ENCODING, "surrogatepass")
        state = blake2b(state + piece, digest_size=ID_BYTES).digest()
        ids.append(int.from_bytes(state, "big", signed=True))
    return ids
