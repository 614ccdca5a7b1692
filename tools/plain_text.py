"""Debian Reference's text form as running prose: no contents pages, no tables, no rulers.

    zcat debian-reference.en.txt.gz | plain_text.py > debian-reference.txt
"""
import re
import sys

TITLE = re.compile(r"[0-9]+[.]([0-9]+[.])* ")
BEGIN = "Preface"  # once in the table of contents, then as the first chapter's title


def prose(lines):
    starts = [n for n, line in enumerate(lines) if line.strip() == BEGIN]
    body = lines[starts[-1]:] if starts else lines
    blank = contents = False
    for line in body:
        text = line.strip()
        if text == "Table of Contents":
            contents = True  # a list of numbered titles, one a line, follows
        contents = contents and (text in ("", "Table of Contents") or bool(TITLE.match(text)))
        if contents:
            continue
        if text.startswith(("|", "+-")) or re.fullmatch(r"[-=_|+ ]{4,}", text):
            continue
        if text.startswith("Table ") and text.endswith("."):
            continue
        if not text and blank:
            continue
        blank = not text
        yield text


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout.reconfigure(encoding="utf-8")
    print("\n".join(prose(sys.stdin.read().splitlines())))
