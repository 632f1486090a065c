"""`python -m medgen`."""

from medgen.cli import main

main()
