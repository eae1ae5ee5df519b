"""The ledger and the disk: what is acknowledged is on it, and all processes write the same log."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from engine.answers import Answers
from engine.ledger import Ledger
from tests.engine.test_ledger_faults import AMPLE, DELTA, charge

ROOT = Path(__file__).parents[2]

# --- one log for all processes -----------------------------------------------------------------

VISIT = """
import sys
from tests.engine.test_ledger_faults import AMPLE, DELTA, charge
from engine.ledger import Ledger
with Ledger.open(sys.argv[1], AMPLE, DELTA) as ledger:
    print(charge(ledger).seq)
"""


def visit(path: Path) -> int:
    """Charge once in a process of its own, which opens the ledger and closes it again."""
    done = subprocess.run([sys.executable, "-c", VISIT, str(path)], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


def test_a_process_that_comes_and_goes_takes_the_log_from_nobody(tmp_path: Path) -> None:
    """Whoever closes SQLite's last connection removes the write-ahead log. A file that is opened
    and closed beside a connection takes away all locks of its process (POSIX), and with them the
    sign that a connection is there: its later charges would go to a file without a name."""
    path = tmp_path / "x"
    with Ledger.open(path, AMPLE, DELTA) as ledger:
        charge(ledger)
        answers = Answers(ledger)  # a second connection of this process, as every engine has
        assert visit(path) == 2
        assert path.with_name("x-wal").exists()
        assert charge(ledger).seq == 3
        assert visit(path) == 4
        assert ledger.spent().exact_epsilon == 4 * Decimal("0.05")
        answers.close()
        assert visit(path) == 5
        assert charge(ledger).seq == 6
    with Ledger.open(path, AMPLE, DELTA) as ledger:
        assert ledger.verify() == 6
