"""`python -m evenbits`: the command where no script of it is on the path."""

from evenbits.commands.app import main

main()
