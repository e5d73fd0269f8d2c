"""Fold on a Dask cluster. This is the only package that imports Dask."""
