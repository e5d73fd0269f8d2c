"""Folds on a Dask cluster. The only package that knows Dask."""
