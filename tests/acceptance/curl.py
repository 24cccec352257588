"""As much of curl as the documents use, for machines that have none: -s -S -i -f -H -X -d -o."""

import argparse
import sys

import requests


def main() -> int:
    """Make one request and print the answer; the exit code is curl's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    for flags in (("-s", "--silent"), ("-S", "--show-error"), ("-i", "--include"), ("-f", "--fail")):
        parser.add_argument(*flags, action="store_true")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-X", "--request")
    parser.add_argument("-d", "--data", "--data-binary")
    parser.add_argument("-o", "--output")
    given = parser.parse_args()
    headers = dict(line.split(": ", 1) for line in given.header)
    data = given.data
    if data is not None and data.startswith("@"):
        with open(data[1:], "rb") as file:
            data = file.read()
    if data is not None:
        headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
    method = given.request or ("GET" if data is None else "POST")
    body = data.encode() if isinstance(data, str) else data
    answer = requests.request(method, given.url, headers=headers, data=body, timeout=30)
    if given.fail and answer.status_code >= 400:
        return 22
    if given.include:
        print(f"HTTP/1.1 {answer.status_code} {answer.reason}")
        print(*(f"{name}: {value}" for name, value in answer.headers.items()), sep="\n", end="\n\n")
    if given.output:
        with open(given.output, "wb") as file:
            file.write(answer.content)
    else:
        sys.stdout.buffer.write(answer.content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
