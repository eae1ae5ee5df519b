"""Attacks on patients as programs: questions out, guesses about single patients back.

Each attack speaks to a `Curator` (curators.py) and to nothing else: the public interface of an
engine. There are three of them, on the same code and the same data: exact answers, noise that
nobody adds up, and Discreet with its budget. The attacker knows the code, the policy and
everybody's rows but the one bit, and spends the budget as well as it can be spent.

`python -m benchmarks.attacks` measures all of them; tests/attacks runs small versions.
"""
