"""Asks the edge as clients from anywhere: on the host itself, which the lab's edge believes about who asks.

Runs on the lab host: reads what to ask as JSON, and prints what was answered."""

import concurrent.futures
import http.client
import json
import select
import socket
import ssl
import sys
import threading


class Connection(http.client.HTTPSConnection):
    """To this host, by the name that users type."""

    def connect(self):
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", 443), 30)
        self.sock = trust.wrap_socket(plain, server_hostname=self.host)


kept = threading.local()


def ask(question):
    """One question, over the connection that this thread has, as browsers do."""
    headers = {"X-Forwarded-For": question["client"], **question.get("headers", {})}
    body = question.get("body")
    connection = getattr(kept, "connection", None) or Connection(question["name"], timeout=30)
    kept.connection = connection
    try:
        connection.request(question.get("method", "GET"), question["path"], body and body.encode(), headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return {"status": 0, "headers": {}, "text": repr(error)}
    return {"status": answer.status, "headers": {k.lower(): v for k, v in answer.getheaders()}, "text": text}


def main():
    asked = json.loads(sys.stdin.readline())
    if "question" in asked:
        # One after the other until nobody listens any more: what each was answered with.
        seen = []
        while not select.select([sys.stdin], [], [], 0.02)[0]:
            answer = ask(asked["question"])
            kept.connection.close()
            seen.append([answer["status"], answer["headers"].get("retry-after"), answer["text"][:80]])
        print(json.dumps(seen))
        return
    with concurrent.futures.ThreadPoolExecutor(asked["together"]) as pool:
        print(json.dumps(list(pool.map(ask, asked["questions"]))))


main()
