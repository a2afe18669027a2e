"""`python -m rcod` is the command `rcod`."""

from rcod.doors.cli import main

if __name__ == "__main__":
    main()
