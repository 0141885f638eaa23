from concurrent.futures import ProcessPoolExecutor


def make_executor(options):
    return ProcessPoolExecutor(max_workers=options["workers"])
