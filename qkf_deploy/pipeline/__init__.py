"""The steps of the pipeline as functions: what :mod:`qkf_deploy.api` is made of."""
