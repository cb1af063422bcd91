"""Documents from wherever people keep them: files of many formats become titled passages.

``read.py`` is the door. One file for each format, named after it, gives sections (see ``parts.py``); ``passages.py``
cuts those into passages; ``near.py`` finds what was said before.
"""
