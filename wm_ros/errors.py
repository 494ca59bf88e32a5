"""Errors that are the user's to mend: one line, the thing named, the remedy said. The CLI exits with 2 on them."""


class UserError(Exception):
    """A mistake in what was asked or given. `str(error)` is one line that names the thing and the remedy."""


class BagError(UserError):
    """A bag is missing, damaged, or holds nothing usable."""


class BundleError(UserError):
    """A bundle is missing, damaged, unsafe, or does not fit the code that loads it."""


class RefusedError(Exception):
    """A sample cannot be used, or too little is known to answer; the message says why. Nothing is broken by it."""


class MessageError(ValueError):
    """A message is malformed or of a layout this stack does not know. Nodes drop such messages and carry on."""
