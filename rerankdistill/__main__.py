"""``python -m rerankdistill`` is the command ``rerankdistill``."""

from rerankdistill.cli.app import main

if __name__ == "__main__":
    main()
