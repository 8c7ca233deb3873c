"""What other libraries print while they are imported."""

import subprocess
import sys

ASKED = """
import logging, sys
import evenbits.models.references
print("transformers" in sys.modules, logging.getLogger("torchao").level == logging.ERROR)
"""


def test_torchao_is_quiet_before_transformers_imports_it():
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
