"""How far prices may move before anybody in a block of accounts can be reached, by words of 32 blocks.

A block is left alone until a price has moved against anybody in it, from where it was looked at, by more than its
radius. The slack of a word is the least that prices have to move before they leave any block in it: until then it is
left alone, too. Few words are near enough to anybody to be compared block by block.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from stress_kernels.pytree import pytree

WORD = 32
"""Blocks of a word: a bit for each."""
SAFE, LOOK = 1e3, -1.0
"""Radius of a block without open positions, and of one to be looked at again."""


@pytree
class Words:
    """Up to 32 blocks of one kind that lie side by side."""

    venue: Int[Array, " w"]
    first: Int[Array, " w"]
    """Its first block."""
    of: Int[Array, " k"]
    """Word of each block."""
    falls: Float[Array, "w x bit"]
    """1 / pace of prices whose fall is against anybody in a block, else 0; x as in `Watched.anchor`."""
    rises: Float[Array, "w x bit"]
    """The same of rises."""
    any_falls: Float[Array, "w x"]
    """The same of anybody in a word."""
    any_rises: Float[Array, "w x"]

    def place(self, block: Int[Array, " g"]) -> tuple[Int[Array, " g"], Int[Array, " g"]]:
        """Word and bit of some blocks; a word past the end for a block past the end."""
        word = self.of.at[block].get(mode="fill", fill_value=self.first.shape[0])
        return word, block - self.first[word]


@pytree
class Watched:
    """Where prices stood when blocks were looked at, and how far they may move."""

    anchor: Float[Array, "w p x bit"]
    """Log prices at which a block was looked at last: marks, and spot prices where coins are anybody's money."""
    radius: Float[Array, "w p bit"]
    """Log move against it from there, in the paces of the prices, up to which nobody in a block can be reached."""
    seen: Float[Array, "x w p"]
    """Log prices at which the blocks of a word were compared with all that last."""
    slack: Float[Array, "w p"]
    """Log move from there, in the paces of the prices, up to which no block of a word is left."""

    def look_again(self, words: Words, block: Int[Array, " g"], path: Int[Array, " g"]) -> Watched:
        """Some blocks are to be looked at wherever prices are."""
        word, bit = words.place(block)
        again = replace(self, radius=self.radius.at[word, path, bit].set(LOOK, mode="drop"))
        return again.bounded(words, block, path, LOOK)

    def looked_at(
        self,
        words: Words,
        block: Int[Array, " g"],
        path: Int[Array, " g"],
        log: Float[Array, "g x"],
        radius: Float[Array, " g"],
    ) -> Watched:
        """Some blocks were looked at.

        Args:
            words: Of all blocks.
            block: Of each pair.
            path: Of each pair.
            log: Log prices at which they were.
            radius: What was found.
        """
        word, bit = words.place(block)
        return replace(
            self,
            anchor=self.anchor.at[word, path, :, bit].set(log, mode="drop"),
            radius=self.radius.at[word, path, bit].set(radius, mode="drop"),
        )

    def bounded(
        self, words: Words, block: Int[Array, " g"], path: Int[Array, " g"], slack: Float[Array, " g"] | float
    ) -> Watched:
        """The words of some blocks have at most so much slack."""
        word, _ = words.place(block)
        return replace(self, slack=self.slack.at[word, path].min(slack, mode="drop"))


def open_words(words: Words, radius: Float[Array, " k"], paths: int) -> Watched:
    """Every word before the first step, with the radius of each of its blocks, the same on all paths."""
    count, prices, size = words.falls.shape
    word, bit = words.place(jnp.arange(radius.shape[0]))
    of_words = jnp.full((count, size), SAFE, radius.dtype).at[word, bit].set(radius)
    return Watched(
        anchor=jnp.zeros((count, paths, prices, size), radius.dtype),
        radius=jnp.broadcast_to(of_words[:, None], (count, paths, size)),
        seen=jnp.zeros((prices, count, paths), radius.dtype),
        slack=jnp.full((count, paths), LOOK, radius.dtype),
    )
