"""``sammed predict``: masks for images that nobody has labelled.

It lies in this room because it needs readers (SimpleITK, nibabel, pydicom), which the model room
must not load, and a model, which the data room must not know.
"""
