"""The little repository that the exam of the full toolkit speaks of."""

from __future__ import annotations

from collections.abc import Mapping

CART = '''\
"""A shopping cart."""

from shop.prices import with_tax


class Cart:
    def __init__(self):
        self.lines = []

    def add(self, name, price, count=1):
        self.lines.append((name, price, count))

    def total(self):
        amount = 0
        for _, price, count in self.lines:
            amount += price * count
        return with_tax(amount)

    def count_lines(self):
        return len(self.lines)
'''
PRICES = '''\
"""Prices and what is added to them."""

RATE = 0.2


def with_tax(amount, rate=RATE):
    return round(amount * (1 + rate), 2)


def discounted(amount, percent):
    return amount - amount * percent / 100


def old_discount(amount):
    return amount * 0.9
'''
REPORT = '''\
"""What was sold."""


def summary(sales):
    rows = {}
    for name, count in sales:
        rows[name] = rows.get(name, 0) + count
    return rows
'''
CONFIG = '''\
"""Settings of the shop; every default stands here and nowhere else."""

CURRENCY = "EUR"
MAX_LINES = 50
'''
FILES: Mapping[str, str] = {
    "README.md": "# shop\n\nA small shop. House rules are in docs/rules.md.\n",
    "docs/rules.md": "# House rules\n\n- Defaults stand in shop/config.py.\n- Money is rounded in shop/prices.py only.\n",
    "shop/__init__.py": "",
    "shop/cart.py": CART,
    "shop/config.py": CONFIG,
    "shop/legacy.py": '"""Nothing imports this any more."""\n\nVERSION = 1\n',
    "shop/prices.py": PRICES,
    "shop/report.py": REPORT,
    "tests/test_cart.py": (
        "from shop.cart import Cart\n\n\ndef test_total():\n    cart = Cart()\n"
        '    cart.add("tea", 10)\n    assert cart.total() == 12\n'
    ),
    "tests/test_prices.py": (
        "from shop.prices import discounted, with_tax\n\n\ndef test_tax():\n    assert with_tax(10) == 12\n\n\n"
        "def test_discount():\n    assert discounted(10, 10) == 9\n"
    ),
}
