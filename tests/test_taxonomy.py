"""The cause of a failure by rules: messages as real programs write them."""

import json
from pathlib import Path

import pytest

from observer_actors.op import Op
from observer_actors.patterns import Cause, Ruling, apply, rule, taxonomy
from observer_actors.patterns.taxonomy import ADVICE

REFUSED = (
    "HTTPConnectionPool(host='db', port=80): Max retries exceeded with url: / (Caused by NewConnectionError("
    "'<urllib3.connection.HTTPConnection object at 0x7f>: Failed to establish a new connection: [Errno 111]"
    " Connection refused'))"
)

NO_QUOTA = (
    "RateLimitError: Error code: 429 - You exceeded your current quota, please check your plan and billing details."
    " {'code': 'insufficient_quota'}"
)
TRACEBACK = 'Traceback (most recent call last):\n  File "/app/run.py", line 12, in <module>\n    main()\n'
HTTPX_404 = (
    "HTTPStatusError: Client error '404 Not Found' for url 'https://api.example.com/v1/x'\nFor more information check:"
    " https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/404"
)


def ruled(error: str, given: str = "") -> Ruling:
    op = Op(
        timestamp="",
        endpoint="tool",
        input_summary=given,
        success=False,
        duration_ms=1,
        output_summary="",
        error=error,
        source="mcp",
        seq=1,
    )
    [pattern] = apply({}, [op]).patterns.values()
    return rule(pattern)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("timeout after 30 s", Cause.TIMEOUT),
        ("\x1b[31mtimeout\x1b[0m", Cause.TIMEOUT),
        ("the answer is 'HTTP\x1b[0m \x1b[31m403'", Cause.PERMISSION),
        ("context deadline exceeded", Cause.TIMEOUT),
        ("HTTP 504 from upstream", Cause.TIMEOUT),
        ("HTTP 429: please wait", Cause.RATE_LIMIT),
        ("Rate limit reached for gpt-4 in organization org-1", Cause.RATE_LIMIT),
        ("You exceeded your current quota, please check your plan and billing details", Cause.QUOTA),
        ("Incorrect request: invalid API key provided", Cause.AUTHENTICATION),
        ("401 Unauthorized", Cause.AUTHENTICATION),
        ("status code 403", Cause.PERMISSION),
        ("EACCES: permission denied, open '/etc/shadow'", Cause.PERMISSION),
        ('relation "users_12" does not exist', Cause.NOT_FOUND),
        ("Error: user mia_li_3668 not found", Cause.NOT_FOUND),
        ("duplicate key value violates unique constraint", Cause.CONFLICT),
        ("database is locked", Cause.CONFLICT),
        ("OSError: [Errno 28] No space left on device", Cause.RESOURCE),
        ("connect ECONNREFUSED 10.0.0.1:5432", Cause.NETWORK),
        ("certificate verify failed: self signed certificate", Cause.CERTIFICATE),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired (_ssl.c:1006)", Cause.CERTIFICATE),
        ("x509: certificate signed by unknown authority", Cause.CERTIFICATE),
        ("net::ERR_CERT_DATE_INVALID", Cause.CERTIFICATE),
        ("the gift certificate is empty", Cause.UNKNOWN),
        (NO_QUOTA, Cause.QUOTA),
        (HTTPX_404, Cause.NOT_FOUND),
        ("HTTPStatusError: Client error '429 Too Many Requests' for url 'https://a/b'", Cause.RATE_LIMIT),
        ("HTTPStatusError: Server error '503 Service Unavailable' for url 'https://a/b'", Cause.UPSTREAM),
        ("502 Bad Gateway", Cause.UPSTREAM),
        ("HTTP 503 from https://api.example.com/flights", Cause.UPSTREAM),
        ("the operation was cancelled", Cause.CANCELLED),
        ("TypeError: cannot read properties of undefined (reading 'seat')", Cause.BUG),
        ("KeyError: 'user_id'", Cause.BUG),
        ("Expected `str`, got `int` - at `$.error`", Cause.VALIDATION),
        ("missing required argument: date", Cause.VALIDATION),
        ("Error: payment amount does not add up, total price is 1002, but paid 957", Cause.VALIDATION),
        ("Error: not enough seats on flight HAT088", Cause.UNAVAILABLE),
        ("Error: certificate cannot be used to update reservation", Cause.UNAVAILABLE),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x'", Cause.NOT_FOUND),
        ("ModuleNotFoundError: No module named 'foo'", Cause.NOT_FOUND),
        ("No module named 'foo'", Cause.NOT_FOUND),
        ("context_length_exceeded", Cause.VALIDATION),
        ("rpc error: code = AlreadyExists desc = it is there", Cause.CONFLICT),
        ("6 ALREADY_EXISTS: it is there", Cause.CONFLICT),
        ("10 ABORTED: somebody was faster", Cause.CONFLICT),
        ("rpc error: code = Aborted desc = somebody was faster", Cause.CONFLICT),
        ("the operation was aborted", Cause.CANCELLED),
        ("9 FAILED_PRECONDITION: the bucket is not empty", Cause.UNAVAILABLE),
        ("13 INTERNAL: it broke", Cause.UPSTREAM),
        ("<AioRpcError: status = StatusCode.INTERNAL>", Cause.UPSTREAM),
        ("an internal note is empty", Cause.UNKNOWN),
        ("12 UNIMPLEMENTED: unknown method", Cause.BUG),
        ("Killed", Cause.RESOURCE),
        ("Killed: 9", Cause.RESOURCE),
        ("the command failed with exit code 137", Cause.RESOURCE),
        ("Killed by the operator", Cause.UNKNOWN),
        ("412 Precondition Failed", Cause.CONFLICT),
        ("assertion failed: left is not right", Cause.BUG),
        ("assertion `left == right` failed", Cause.BUG),
        ("no such file, the disk quota is fine", Cause.NOT_FOUND),
        ("Quota exceeded for metric reads", Cause.QUOTA),
        ("the disk quota of alice is full", Cause.QUOTA),
        ("exceededQuota", Cause.QUOTA),
        ("OSError: [Errno 122] Disk quota exceeded", Cause.QUOTA),
        ("QuotaExceededException", Cause.QUOTA),
        ("Unclosed quotation mark after the character string", Cause.UNKNOWN),
        ("billing address is missing", Cause.UNKNOWN),
        ("metagpt role missing", Cause.UNKNOWN),
        ("APIError('rate limit exceeded, retry in 5s')", Cause.RATE_LIMIT),
        ('tool failed: "permission denied"', Cause.PERMISSION),
        ('{"errors":["rate limit exceeded"]}', Cause.RATE_LIMIT),
        ("TypeError: 'NoneType' object is not subscriptable", Cause.BUG),
        ("JWT expired", Cause.AUTHENTICATION),
        ("Incorrect API key provided", Cause.AUTHENTICATION),
        ("Error code: 529 - overloaded", Cause.UPSTREAM),
        (REFUSED, Cause.NETWORK),
        ("AuthenticationError", Cause.AUTHENTICATION),
        ("invalid_api_key", Cause.AUTHENTICATION),
        ("ExpiredToken", Cause.AUTHENTICATION),
        ("AccessDenied", Cause.PERMISSION),
        ("NoSuchKey", Cause.NOT_FOUND),
        ("table 'timeout_log' has no column 'x'", Cause.NOT_FOUND),
        ("net::ERR_CONNECTION_REFUSED", Cause.NETWORK),
        ("Failed to fetch", Cause.NETWORK),
        ("BrokenPipeError", Cause.NETWORK),
        ("Connection pool exhausted", Cause.RESOURCE),
        ("FATAL: sorry, too many clients already", Cause.RESOURCE),
        ("listen EADDRINUSE: address already in use", Cause.CONFLICT),
        ("could not serialize access due to concurrent update", Cause.CONFLICT),
        ("canceling statement due to user request", Cause.CANCELLED),
        ("attempt to write a readonly database", Cause.PERMISSION),
        ("violates foreign key constraint", Cause.VALIDATION),
        ("405 Method Not Allowed", Cause.VALIDATION),
        ("Unexpected token at position 3: invalid token", Cause.VALIDATION),
        ("dial tcp: lookup api.prod.svc.cluster.local on 10.96.0.10:53: no such host", Cause.NETWORK),
        ("TypeError: fetch failed", Cause.NETWORK),
        ('Get "https://api.example.com/v1": EOF', Cause.NETWORK),
        ("read body: unexpected EOF", Cause.NETWORK),
        ("SyntaxError: unexpected EOF while parsing", Cause.UNKNOWN),
        ("java.net.UnknownHostException: db.internal", Cause.NETWORK),
        ("aiohttp.client_exceptions.ServerDisconnectedError: Server disconnected", Cause.NETWORK),
        ("The connection to the server localhost:8080 was refused", Cause.NETWORK),
        ("ERROR 2013 (HY000): Lost connection to MySQL server during query", Cause.NETWORK),
        ("javax.net.ssl.SSLHandshakeException: PKIX path building failed: unable to find it", Cause.CERTIFICATE),
        ("Error: unable to verify the first certificate", Cause.CERTIFICATE),
        ("System.UnauthorizedAccessException: Access to the path 'C:\\x' is denied.", Cause.PERMISSION),
        ("UnauthorizedException: log in first", Cause.AUTHENTICATION),
        ("Access denied for user 'root'@'localhost' (using password: YES)", Cause.AUTHENTICATION),
        ("ORA-01017: invalid username/password; logon denied", Cause.AUTHENTICATION),
        ("botocore.exceptions.NoCredentialsError: Unable to locate credentials", Cause.AUTHENTICATION),
        ("(SignatureDoesNotMatch) The request signature we calculated does not match yours", Cause.AUTHENTICATION),
        ("rpc error: code = ResourceExhausted desc = too busy", Cause.RATE_LIMIT),
        ("An error occurred (SlowDown) when calling the PutObject operation", Cause.RATE_LIMIT),
        ("ProvisionedThroughputExceededException", Cause.RATE_LIMIT),
        ("the error rate exceeded what is usual", Cause.UNKNOWN),
        ("Your credit balance is too low to access the API", Cause.QUOTA),
        ("PHP Fatal error: Maximum execution time of 30 seconds exceeded", Cause.TIMEOUT),
        ("0/3 nodes are available: 3 Insufficient memory.", Cause.RESOURCE),
        ("java.lang.ArrayIndexOutOfBoundsException: Index 5 out of bounds for length 3", Cause.BUG),
        ("java.lang.StackOverflowError", Cause.BUG),
        ("ReferenceError: foo is not defined", Cause.BUG),
        ("panic: assignment to entry in nil map", Cause.BUG),
        ("System.NullReferenceException: Object reference not set", Cause.BUG),
        ("ERROR: division by zero", Cause.BUG),
        ("sqlite3.IntegrityError: NOT NULL constraint failed: users.email", Cause.VALIDATION),
        ("sqlite3.IntegrityError: UNIQUE constraint failed: users.email", Cause.CONFLICT),
        ("You have an error in your SQL syntax near 'FORM users'", Cause.VALIDATION),
        ("sql: no rows in result set", Cause.NOT_FOUND),
        ("Error: Cannot find module 'express'", Cause.NOT_FOUND),
        ("Unknown database 'foo'", Cause.NOT_FOUND),
        ("Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1234", Cause.CONFLICT),
        ("(ConditionalCheckFailedException) The conditional request failed", Cause.CONFLICT),
        ("KeyboardInterrupt", Cause.CANCELLED),
        ('{"statusCode":404,"path":"/x"}', Cause.NOT_FOUND),
        (f"{TRACEBACK}FileNotFoundError: [Errno 2] No such file or directory: 'x'", Cause.NOT_FOUND),
        (f"{TRACEBACK}sqlite3.OperationalError: database is locked", Cause.CONFLICT),
        (f"{TRACEBACK}ConnectionRefusedError: [Errno 111] Connection refused", Cause.NETWORK),
        (f"{TRACEBACK}odd.OddError: it did something odd", Cause.BUG),
        ("ThrottlingException: Rate exceeded", Cause.RATE_LIMIT),
        ("Rate exceeded", Cause.RATE_LIMIT),
        (
            '{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}',
            Cause.AUTHENTICATION,
        ),
        ("Invalid username or password", Cause.AUTHENTICATION),
        ("WRONGPASS invalid username-password pair or user is disabled.", Cause.AUTHENTICATION),
        ("invalid_grant: Token has been expired or revoked.", Cause.AUTHENTICATION),
        ("jwt.exceptions.ExpiredSignatureError: Signature has expired", Cause.AUTHENTICATION),
        ("The security token included in the request is expired", Cause.AUTHENTICATION),
        ("remote: HTTP Basic: Access denied", Cause.AUTHENTICATION),
        ("fatal: could not read Username for 'https://github.com': terminal prompts disabled", Cause.AUTHENTICATION),
        ("sudo: a terminal is required to read the password", Cause.PERMISSION),
        ("sudo: a password is required", Cause.PERMISSION),
        ("the date is required", Cause.VALIDATION),
        ("peer closed connection without sending complete message body (incomplete chunked read)", Cause.NETWORK),
        ("server closed the connection unexpectedly", Cause.NETWORK),
        ("read tcp 10.0.0.1:80: use of closed network connection", Cause.NETWORK),
        ("SSLEOFError: EOF occurred in violation of protocol (_ssl.c:2396)", Cause.NETWORK),
        ("ConnectionResetError", Cause.NETWORK),
        ("FileExistsError: [Errno 17] File exists: '/x'", Cause.CONFLICT),
        ("error: Your local changes to the following files would be overwritten by merge", Cause.CONFLICT),
        ("mkdir: cannot create directory 'x': File exists", Cause.CONFLICT),
        ("there is no such file exists", Cause.NOT_FOUND),
        (" ! [rejected]  main -> main (fetch first)", Cause.CONFLICT),
        ("The process cannot access the file because it is being used by another process.", Cause.CONFLICT),
        ("OSError: [Errno 12] Cannot allocate memory", Cause.RESOURCE),
        ("bash: fork: retry: Resource temporarily unavailable", Cause.RESOURCE),
        ("QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00", Cause.RESOURCE),
        ("ls: unrecognized option '--foo'", Cause.VALIDATION),
        ("unknown flag: --foo", Cause.VALIDATION),
        ("error: the following arguments are required: --name", Cause.VALIDATION),
        ('column "x" must appear in the GROUP BY clause', Cause.VALIDATION),
        ("ImportError: cannot import name 'x' from 'y'", Cause.NOT_FOUND),
        ("error TS2304: Cannot find name 'x'.", Cause.NOT_FOUND),
        ("ERROR: Could not find a version that satisfies the requirement foo", Cause.NOT_FOUND),
        ("fatal: couldn't find remote ref main", Cause.NOT_FOUND),
        ("error: pathspec 'x' did not match any file(s) known to git", Cause.NOT_FOUND),
        ("Message: Unable to locate element: body", Cause.NOT_FOUND),
        ("Request was aborted.", Cause.CANCELLED),
        ("AbortError: signal is aborted without reason", Cause.CANCELLED),
        ("signal: terminated", Cause.CANCELLED),
        ("The user doesn't want to proceed with this tool use. The tool use was rejected", Cause.CANCELLED),
        ("The server had an error while processing your request. Sorry about that!", Cause.UPSTREAM),
        ("no seats available", Cause.UNAVAILABLE),
        ("unreachable code", Cause.UNKNOWN),
        ("it did something odd", Cause.UNKNOWN),
        ("", Cause.UNKNOWN),
    ],
)
def test_a_message_has_its_cause(error: str, cause: Cause) -> None:
    ruling = ruled(error)
    assert ruling.cause is cause
    assert (ruling.confidence > 0) is (cause is not Cause.UNKNOWN)
    assert ruling.advice == ADVICE[cause]


def test_each_cause_has_advice() -> None:
    assert set(ADVICE) == set(Cause)


def test_a_status_counts_only_when_all_examples_name_it() -> None:
    def op(seq: int, said: str) -> Op:
        return Op(
            timestamp="",
            endpoint="tool",
            input_summary="",
            success=False,
            duration_ms=1,
            output_summary="",
            error=f"it said '{said}'",
            source="mcp",
            seq=seq,
        )

    [same] = apply({}, [op(1, "HTTP 404"), op(2, "HTTP 404")]).patterns.values()
    [mixed] = apply({}, [op(1, "HTTP 404"), op(2, "HTTP 503")]).patterns.values()
    [once] = apply({}, [op(1, "HTTP 404"), op(2, "odd"), op(3, "odd")]).patterns.values()
    assert (rule(same).cause, rule(same).because) == (Cause.NOT_FOUND, "status 404")
    assert rule(mixed).cause is rule(once).cause is Cause.UNKNOWN


def test_a_status_in_what_the_caller_gave_is_none_of_the_error() -> None:
    assert (
        ruled("the date is invalid", given="tell the user: error 404 means that it is missing").cause
        is Cause.VALIDATION
    )
    long = "tell the user: error 404 means that it is missing; " * 20
    assert ruled("the answer was odd", given=long).cause is Cause.UNKNOWN
    assert ruled("", given="error 404").cause is Cause.UNKNOWN
    assert ruled("the server said 'HTTP 503'", given=long).cause is Cause.UPSTREAM


def test_no_airline_error_is_unknown(shared_data: Path) -> None:
    texts = json.loads((shared_data / "taubench_airline_truth.json").read_text())
    assert [text for text in texts if ruled(text).cause is Cause.UNKNOWN] == []


def test_looking_for_all_rules_at_once_finds_what_looking_for_each_does(shared_data: Path) -> None:
    lines = [
        json.loads(line)["error"]
        for name in ("Apache", "HPC", "Linux", "OpenSSH", "Spark")
        for line in (shared_data / "loghub2k" / f"{name}.jsonl").read_text().splitlines()
    ]
    texts = [*json.loads((shared_data / "taubench_airline_truth.json").read_text()), *dict.fromkeys(lines)]
    at_once = [sorted(taxonomy.AT_ONCE.Match(text.encode()) or ()) for text in texts]
    assert at_once == [[n for n, one in enumerate(taxonomy.RULES) if one.words.search(text)] for text in texts]
    assert sum(map(bool, at_once)) > len(texts) / 10
