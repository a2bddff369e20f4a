"""What a secret looks like: our own patterns, beside a library's. Each takes time in proportion to the text."""

from __future__ import annotations

import re

_BEGINS = r"(?<![A-Za-z0-9_-])"
_NEW = r"(?!\[redacted:)"
_KEY_ENDS = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_NAME = (
    r"[\w.-]{0,40}?(?:pass(?:word|wd|phrase)|pwd|secret|token(?!iz|s\b|_ids?\b)|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|credential)\w{0,20}"
)
_NO_CODE = r"(?![$<{(\[*.]|(?:true|false|none|null|os|str|self|settings|config|env|process)\b)"

PATTERNS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (
            "private-key",
            rf"-----BEGIN {_KEY_ENDS}(?:(?s:.{{1,10000}}?)-----END {_KEY_ENDS}|[A-Za-z0-9+/=\s\\,:→|>-]*+)",
        ),
        # The end of one whose beginning was cut off.
        (
            "private-key",
            rf"(?<![A-Za-z0-9+/=])(?>(?:[A-Za-z0-9+/=]{{16,128}}+(?:\r?\n|\\n)){{1,400}})-----END {_KEY_ENDS}",
        ),
        ("private-key", r"PuTTY-User-Key-File-\d(?s:.*?)(?:Private-MAC: \w+|\Z)"),
        ("jwt", r"(?<![\w=-])eyJ[\w=-]{8,}\.[\w=-]{8,}(?:\.[\w.+/=-]*)?"),
        ("github-token", r"gh[pousr]_[A-Za-z0-9_]{20,}|github_pat_\w{20,}"),
        ("aws-key", rf"{_BEGINS}(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{{16}}"),
        ("anthropic-key", rf"{_BEGINS}sk-ant-[\w-]{{16,}}"),
        ("openai-key", rf"{_BEGINS}sk-(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[\w-]{{20,}}"),
        ("google-key", r"AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"),
        ("slack-token", r"xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}|https://hooks\.slack\.com/services/[\w/]+"),
        ("hugging-face-token", rf"{_BEGINS}hf_[A-Za-z0-9]{{20,}}"),
        ("stripe-key", r"[rsp]k_(?:live|test)_[0-9A-Za-z]{16,}|whsec_[\w+/=]{16,}"),
        ("registry-token", r"npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}|do[opr]_v1_[0-9a-f]{40,}|gl[a-z]{2,6}-[\w-]{20,}"),
        ("url-password", rf"(?<=://)[^\s/:@{{}}<>\"']{{0,100}}:{_NEW}[^\s/@{{}}<>\"']{{1,200}}(?=@)"),
        ("authorization", rf"(?i)\b(?:bearer|token|basic)[ ]+{_NEW}(?=[\w.~+/-]*\d)[\w.~+/-]{{16,}}=*"),
    )
)
"""Kind and pattern, in the order in which they are applied; the whole match is what is secret."""

VALUES = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (
            "authorization",
            r"(?i)((?:authorization|x-api-key|x-auth-token|private-token|set-cookie|cookie)[\"']?[ ]?[:=][ ]?[\"']?"
            rf"(?:(?:bearer|basic|token|digest)[ ]+)?){_NEW}{_NO_CODE}([^\s\"',;{{}}]{{6,2000}})",
        ),
        # NAME=value, as in an .env file or an export; a count such as MAX_TOKENS=4096 is none.
        (
            "secret-value",
            r"(\b[A-Z][A-Z0-9_]{0,60}?(?:_KEY|KEY_ID|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)[A-Z0-9_]{0,20}=[\"']?)"
            rf"{_NEW}(?i:{_NO_CODE})(?!\d{{1,7}}\b)([^\s\"'`,;)\]}}]{{4,2000}})",
        ),
        # "name": "value" and name = 'value'; only quoted values, because code assigns unquoted ones all the time.
        (
            "secret-value",
            rf"(?i)(\b{_NAME}(?:\\?[\"'])?\s{{0,4}}(?:[:=]|=>|:=|==)\s{{0,4}}\\?[\"']){_NEW}([^\s\"'\\]{{4,2000}})",
        ),
        # name: value and name=value, where the value is no word of a program: it has digits and letters.
        (
            "secret-value",
            rf"(?im)(^[ \t+-]*{_NAME}[ \t]*[:=][ \t]*){_NEW}{_NO_CODE}"
            r"(?=\S*[0-9])(?=\S*[a-z])(?!\S*[(\[])([^\s\"'`,;]{6,2000})[ \t\r]*$",
        ),
        ("secret-value", rf"(?i)([?&](?:{_NAME}|key|sig|signature)=){_NEW}{_NO_CODE}([^\s&\"'#]{{6,2000}})"),
        (
            "secret-value",
            rf"((?<=\s)--?(?:password|passwd|passphrase|token|secret|api-key|apikey)[ =][\"']?){_NEW}(?i:{_NO_CODE})"
            r"(?![A-Z_-]+\b)([^\s\"'\]]{6,500})",
        ),
        ("url-password", rf"((?<=\s)(?:-u|--user)[ =][\"']?[A-Za-z][\w.@-]{{0,60}}:){_NEW}([^\s\"'/]{{4,200}})"),
        # Not git@host, not the names that are reserved for examples, not a decorator after a written-out line end.
        (
            "email",
            r"(\\[nrt]|(?<![\\\w.+-]))((?!git@)[A-Za-z0-9][\w.+-]{0,63}@(?!(?:[\w-]+\.){0,4}example\.)"
            r"(?:[A-Za-z0-9-]{1,63}\.){1,5}(?!(?:py|js|ts|md|service|timer)\b)[A-Za-z]{2,24})\b",
        ),
    )
)
"""Kind and pattern: group 1 stays, group 2 is what is secret."""

HOMES = re.compile(
    r"(?<![\w.])(?:/home/|/Users/|[A-Za-z]:\\{1,2}Users\\{1,2})(?!\[|\.\.|<)[\w.@+-]+"
    r"|(?<=projects/)-(?:home|Users)-[A-Za-z0-9]+"
)
"""Home folders with their owner's name, also as Claude Code writes them in the names of its folders."""
