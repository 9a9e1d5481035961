"""Money is an exact decimal together with an ISO 4217 currency; a float never takes part.

Amounts cross the border as decimal strings. Inside, counts of a currency's smallest unit are plain integers.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import TypeAlias

    Amount: TypeAlias = Decimal
else:

    class _PlainDecimal(type):
        # A built-in method, so that asking costs no Python frame: isinstance(x, Amount) is isinstance(x, Decimal).
        __instancecheck__ = Decimal.__instancecheck__

    class Amount(metaclass=_PlainDecimal):
        """A non-negative amount of money or a percentage. A name for the codec; the values are plain Decimals."""


AMOUNT_PATTERN: Final = r"[0-9]{1,15}(\.[0-9]{1,8})?"
CURRENCY_PATTERN: Final = "[A-Z]{3}"

# ISO 4217, List One: all currencies whose smallest unit is not a hundredth, by the decimals that it has.
_BY_EXPONENT: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_EXPONENTS: Final = {code: decimals for decimals, codes in _BY_EXPONENT.items() for code in codes.split()}
_HUNDREDTHS: Final = 2
_is_amount: Final = re.compile(AMOUNT_PATTERN).fullmatch
_is_currency: Final = re.compile(CURRENCY_PATTERN).fullmatch


class BadAmount(ValueError):
    """Not a decimal string. Its text is a sentence for the sender."""


def parse_amount(raw: object) -> Decimal:
    """Read a decimal string such as "258.00": no sign, at most 15 digits before the point and 8 after it.

    Raises `BadAmount`; a JSON number is refused, because a float on its way here may have changed it.
    """
    if type(raw) is not str:
        raise BadAmount('Money is a decimal string such as "258.00", not a JSON number or anything else.')
    return parse_amount_text(raw)


@lru_cache(maxsize=8192)
def parse_amount_text(text: str) -> Decimal:
    """The same for what is known to be text; cached, because prices come again and again."""
    if _is_amount(text) is None:
        raise BadAmount(
            f'{text[:40]!r} is not an amount. Send a decimal string such as "258.00", without sign or commas.'
        )
    return Decimal(text)


@lru_cache(maxsize=1024)
def is_currency(text: str) -> bool:
    """Whether the text has the shape of an ISO 4217 code: three capital letters."""
    return _is_currency(text) is not None


def exponent(currency: str) -> int:
    """How many decimals the currency's smallest unit has: CNY 2, JPY 0, KWD 3. Unknown currencies have 2."""
    return _EXPONENTS.get(currency, _HUNDREDTHS)


def minor_units(amount: Decimal, currency: str) -> int:
    """The amount in the currency's smallest unit, halves rounded up: 258.00 CNY is 25800, 258 JPY is 258."""
    return int(amount.scaleb(exponent(currency)).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def format_money(minor: int, currency: str) -> str:
    """The reverse of `minor_units`, as the contract writes money: 25800 of CNY is "258.00"."""
    return f"{Decimal(minor).scaleb(-exponent(currency)):f}"
