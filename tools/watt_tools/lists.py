"""Who certified which height: the lists of genesis, and of areas that the regulator readmitted (CONSENSUS.md 8.8).

A part of the independent verifier: written from the document, shares no code with the network. An export whose chains
changed their lists otherwise (8.1 to 8.7) is not verified yet: its headers name lists that nobody told it of.
"""

from hashlib import sha256
from typing import Any

import msgspec


def need(held: object, text: str) -> None:
    if not held:
        raise ValueError(text)


class Lists:
    """Fed the accepted calls in their order, the main chain's first; heights answer by what it said."""

    def __init__(self, founders: dict[int, list[Any]]) -> None:
        self.founders = {chain: [key for _, key in listed] for chain, listed in founders.items()}
        self.known = {chain: [(1, b"", listed)] for chain, listed in founders.items()}
        "(first height, hash of the block before, [name, key]) of each list."
        self.names = {chain: dict(listed) for chain, listed in founders.items()}
        "Every name ever listed, in the order of their numbers, with its newest key."
        self.anchored, self.words = dict[int, tuple[int, bytes]](), dict[tuple[int, int], bytes]()
        need(all(len({*keys}) == len(keys) for keys in self.founders.values()), "a validator has two seats")

    def at(self, chain: int, height: int) -> tuple[int, bytes, list[Any]]:
        found: tuple[int, bytes, list[Any]] = next(one for one in reversed(self.known[chain]) if one[0] <= height)
        return found

    def keys(self, chain: int, height: int) -> list[bytes]:
        return [key for _, key in self.at(chain, height)[2]]

    def hash(self, chain: int, height: int, raws: list[bytes]) -> bytes:
        """Of the list that the header of a height names; the first block under a new list begins with the word."""
        since, previous, listed = self.at(chain, height)
        word = self.words.get((chain, since), b"")
        need(word or not previous, "the regulator's word is missing")
        need(height != since or not previous or raws[0] == word, "the regulator's word is not its first call")
        return sha256(msgspec.msgpack.encode(listed)).digest()

    def take(self, of: Any, chain: int, call: Any, raw: bytes) -> None:
        """An accepted call, signed and of its next nonce."""
        if call.kind == "Anchor":
            header, [hash_] = msgspec.msgpack.decode(call.fields[0]), call.hashes
            self.anchored[header[1]] = header[2], hash_
        elif call.kind == "Readmit":
            height, hash_ = self.anchored.get(call.fields[0], (0, of.network))
            held = {key for _, key in self.at(call.fields[0], height + 1)[2]} & {key for _, key in call.fields[1]}
            need(call.me.role == "regulator" and not held, f"{call.where} not the regulator's, or with an old key")
            self.known[call.fields[0]].append((height + 1, hash_, call.fields[1]))
        elif call.kind == "Resume":
            height, parties, names = call.header.height, of.parties[chain], self.names[chain]
            good = tuple(call.fields[1:]) == self.at(chain, height) and call.header.previous == call.fields[2]
            need(call.me.role == "regulator" and good, f"{call.where} not what the main chain was told")
            self.words[chain, height] = raw
            for key in [key for key in names.values() if key in parties]:
                parties[b"ended" + key] = parties.pop(key)
            for name, key in call.fields[3]:
                need(key not in parties and b"ended" + key not in parties, f"{call.where} an old key")
                if name in names:
                    parties[key] = parties.pop(b"ended" + names[name])
                    parties[key].public = key
                else:
                    of.enter(chain, "validator", key, len(names), 0)
                names[name] = key

    def ids(self, chain: int, height: int) -> list[tuple[int, bytes]]:
        """(number, account) of who had seats at a height, by index."""
        numbers = list(self.names[chain])
        listed = self.at(chain, height)[2]
        first = {name: sha256(key).digest()[:8] for _, _, one in reversed(self.known[chain]) for name, key in one}
        return [(numbers.index(name), first[name]) for name, _ in listed]
