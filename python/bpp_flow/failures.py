"""The story of an exception: message, traceback and place, without the worker's own frames."""

import os

OWN = "<bpp-flow>"
MAX_MESSAGE = 16 * 1024
MAX_TRACEBACK = 64 * 1024


def clean(text, limit):
    """Text that is Unicode and not too long."""
    if len(text) > limit:
        left_out = len(text) - limit
        text = "%s\n[... %d characters left out ...]\n%s" % (text[: limit // 2], left_out, text[-limit // 2:])
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def message(error):
    """`TypeName: text`, the type as Python names it."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = "%s.%s" % (kind.__module__, name)
    try:
        text = str(error)
    except BaseException:
        text = "<exception str() failed>"
    return clean("%s: %s" % (name, text) if text else name, MAX_MESSAGE)


def users(trace):
    """The traceback from the first frame on that is not the worker's."""
    while trace is not None and is_own(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def is_own(file):
    return file == OWN or file.startswith("<frozen importlib")


def story(error, folder):
    """(message, traceback, place) of an exception that came out of the user's code."""
    try:
        trace = users(error.__traceback__)
        return message(error), text(error, trace), place(trace, folder)
    except BaseException as problem:
        return message(error), "the traceback cannot be shown: %s" % message(problem), ""


def text(error, trace):
    import traceback

    lines = traceback.format_exception(type(error), error, trace)
    return clean("".join(lines), MAX_TRACEBACK)


def place(trace, folder):
    """`file.py:12 in function` of the innermost frame in the user's folder, or of the innermost of all."""
    found = last = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not is_own(file):
            last = (file, trace)
            if is_users(file, folder):
                found = last
        trace = trace.tb_next
    if last is None:
        return ""
    file, trace = found or last
    if is_users(file, folder):
        file = os.path.relpath(file, folder)
    return clean("%s:%d in %s" % (file, trace.tb_lineno, trace.tb_frame.f_code.co_name), MAX_MESSAGE)


def is_users(file, folder):
    inside = folder and file.startswith(os.path.join(folder, ""))
    return inside and "/site-packages/" not in file and "/dist-packages/" not in file
