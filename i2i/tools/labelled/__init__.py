"""Labelled data sets: their layouts found, checked, and written again with translated copies of their pictures.

A translation moves nothing, so a copy has the boxes, keypoints and masks of its original. Only names change: those of
the files, and those that stand in them.
"""
