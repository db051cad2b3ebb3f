"""The errors: the tree in the module's docstring is the real one."""

import builtins
import inspect
import re

from showtell import errors
from showtell.serve.errors import RequestError


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = dict(re.findall(r"── ([\w.]+) +(\w*)", errors.__doc__ or ""))
    classes = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.ShowtellError)]
    names = {each.__name__ for each in classes if each is not errors.ShowtellError}
    assert drawn.keys() == names | {"serve.errors.RequestError"}
    assert all(issubclass(each, getattr(builtins, drawn[each.__name__])) for each in classes if each.__name__ in names)
    assert issubclass(RequestError, errors.ShowtellError)


def test_every_error_says_with_which_status_a_command_ends() -> None:
    for name, each in inspect.getmembers(errors, inspect.isclass):
        if issubclass(each, errors.ShowtellError) and each is not errors.ShowtellError:
            assert "xit status" in (each.__doc__ or ""), name
