"""Students: small networks that give another guide's embeddings from the picture alone.

`network` is what they compute, `guide` how one lies on disk and encodes pictures, `data` what it
learns from, `training` how, `agreement` how near it comes.
"""
