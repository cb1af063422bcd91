"""rerankdistill: small, fast rankers that rank like big, slow ones.

Importing the package imports nothing heavy; every verb of the command line has a function of the same name in
:mod:`rerankdistill.pipeline`.
"""

__version__ = "0.1.0"
