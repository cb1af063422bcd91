"""Collections: documents, queries and judgements, read where they lie. The door is :func:`load_collection`."""

from rerankdistill.collections.load import load_collection

__all__ = ["load_collection"]
