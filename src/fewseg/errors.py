"""The two kinds of error that a user can mend; the command line turns them into exit codes."""


class FewsegError(Exception):
    """An error whose text says what was given, what is allowed and what to do."""

    exit_code = 1


class UsageError(FewsegError, ValueError):
    """A wrong name, option or argument (exit code 2)."""

    exit_code = 2


class DataError(FewsegError, ValueError):
    """A file or data set that is missing, broken or too small for what was asked (exit code 1)."""
