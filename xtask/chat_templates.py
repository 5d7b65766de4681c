"""Takes the chat templates out of the source package of llama-cpp-python: ARCHIVE DIRECTORY."""

import pathlib
import sys
import tarfile

archive, directory = sys.argv[1], pathlib.Path(sys.argv[2])
directory.mkdir(parents=True)
with tarfile.open(archive) as package:
    for member in package:
        path = pathlib.PurePosixPath(member.name)
        if member.isfile() and path.suffix == ".jinja" and path.parent.parts[-2:] == ("models", "templates"):
            (directory / path.name).write_bytes(package.extractfile(member).read())
