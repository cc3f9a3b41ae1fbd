"""Which tests run where: what needs the image's libraries runs inside the image, in its stage `test`."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("mlxtend") else ["tests"]
