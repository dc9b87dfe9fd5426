"""`python -m qkf_deploy`."""

from qkf_deploy.cli import main

if __name__ == "__main__":
    main()
