"""The plug's time: asked of the gateway, signed by it, with a quality; and what a plug knows before it has asked.

Time before TLS: a certificate can be judged only by a plug that knows the year. The journal's last time and the day
from which the plug's own certificate is valid are never later than now, so the later of them serves for the handshake,
and for nothing else: records keep quality U and count seconds since boot until an answer of the gateway is verified.
"""

import hashlib

from watt_wire import p256, statement
from watt_wire.errors import DecodeError
from watt_wire.fields import ID_SIZE, QUALITY_UNSYNCHRONISED

ANSWER_S = 5
"An answer that takes longer says little about now (W10.3)."
ASK_AGAIN_S = 15
RESYNC_S = 600
"Ten minutes: the crystal drifts 25 ms in them, and the word of the gateway keeps a hold alive (interlock.CONTACT_S)."
STALE_S = 86400
"A day without an answer, and the quality falls from S to R: the crystal may be two seconds off."
SLICE = 16


class Clock:
    """Unix seconds from the timer and the last good answer.

    gateway_key   64 bytes, whose signature is trusted
    random        random(n) -> n bytes
    """

    def __init__(self, plug_id: bytes, gateway_key: bytes, random: object) -> None:
        self._plug_id = plug_id
        self._key = gateway_key
        self._random = random
        self._nonce = b""
        self._asked_s = -ASK_AGAIN_S
        self._work: "p256.Verification | None" = None
        self._offer = (0, "")
        self._offset_s = 0
        self._set_s = -1
        self._letter = "U"
        self.rejected: dict[str, int] = {}

    def now_s(self, timer_s: int) -> int:
        """Return Unix seconds, or seconds since boot while the quality is U."""
        return timer_s + self._offset_s

    def quality(self, timer_s: int) -> str:
        """Return the letter of WIRE.md W1.6."""
        if self._set_s >= 0 and timer_s - self._set_s > STALE_S:
            return "R"
        return self._letter

    def question(self, timer_s: int) -> bytes:
        """Return the nonce to send now, or nothing when none is due."""
        wait_s = ASK_AGAIN_S if self._nonce or self._set_s < 0 else RESYNC_S
        if timer_s - self._asked_s < wait_s or self._work is not None:
            return b""
        self._asked_s = timer_s
        self._nonce = self._random(statement.NONCE_SIZE)  # type: ignore[operator]
        return self._nonce

    def answer(self, frame: bytes, timer_s: int) -> None:
        """Take an answer; it counts once `work` has verified it. What is wrong with it is counted."""
        try:
            said = statement.TIME.decode(frame)
        except DecodeError as error:
            self._refuse(error.reason)
            return
        if not self._nonce or said.data("nonce") != self._nonce or said.data("plug_id") != self._plug_id:
            self._refuse("time-nonce")
        elif timer_s - self._asked_s > ANSWER_S:
            self._refuse("time-late")
        elif said.number("time_quality") == QUALITY_UNSYNCHRONISED:
            self._refuse("time-quality")
        elif not p256.is_low_s(statement.TIME.signature_of(frame)):
            self._refuse("time-signature")
        else:
            self._nonce = b""
            # Seconds when the answer came, less half the way; the work of verifying does not count.
            here_s = (self._asked_s + timer_s + 1) // 2
            self._offer = said.number("time_s") - here_s, chr(said.number("time_quality"))
            message = statement.TIME.message(statement.TIME.body_of(frame))
            self._work = p256.Verification(self._key, message, statement.TIME.signature_of(frame))

    def work(self, timer_s: int) -> bool:
        """Verify a slice; return whether more is to be done."""
        work = self._work
        if work is None:
            return False
        if not work.step(SLICE):
            return True
        self._work = None
        if not work.good:
            self._refuse("time-signature")
            return False
        self._offset_s, self._letter = self._offer
        self._set_s = timer_s
        return False

    def _refuse(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1


def plug_id_of(public: bytes) -> bytes:
    """Return the id of a public key (W1.5)."""
    return hashlib.sha256(public).digest()[:ID_SIZE]


def not_before_s(certificate: bytes) -> int:
    """Return from when a certificate (DER) is valid, Unix s; 0 when it does not say so in the usual way (RFC 5280)."""
    for at in range(len(certificate) - 15):
        # UTCTime of 13 characters: YYMMDDHHMMSSZ; the first one is the beginning.
        text = certificate[at + 2 : at + 15]
        if certificate[at] == 0x17 and certificate[at + 1] == 13 and text[12:] == b"Z" and text[:12].isdigit():
            year, month, day, hour, minute, second = [int(text[place : place + 2]) for place in range(0, 12, 2)]
            return days_from_civil(2000 + year, month, day) * 86400 + hour * 3600 + minute * 60 + second
    return 0


def days_from_civil(year: int, month: int, day: int) -> int:
    """Return days since 1 January 1970 of a date of the Gregorian calendar, whatever the port's epoch is."""
    if month <= 2:
        year -= 1
        month += 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 1 - 719468
