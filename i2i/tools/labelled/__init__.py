"""Labelled data sets: their layouts found, checked, and written again with translated copies of their pictures.

A translation moves nothing, so a copy has the boxes, keypoints and masks of its original; what changes are names:
of the files, and in them.
"""
