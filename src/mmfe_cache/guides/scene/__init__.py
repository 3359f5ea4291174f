"""The guide ``scene``: degradations seen by a small network that comes with the package.

`guide` is what encodes pictures and how its weights lie on disk, `network` what it runs, and how it
is asked for some degradations alone; `data` and `training` make its weights, `evaluation` measures
any guide.
"""
