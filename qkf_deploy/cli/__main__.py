"""`python -m qkf_deploy.cli`."""

from qkf_deploy.cli import main

main()
