"""Two things happen in one turn of the gateway's loop: one side speaks, ends or resets while the other does.

Goal: whatever comes together, nothing crashes, nothing is left open, no answer is given to the wrong request, and the
next request is served.

Method: the gateway is stopped (SIGSTOP), both sides act, and it goes on (SIGCONT): then everything waits for it in the
kernel at once. All pairs of actions, in both orders, for each state of an exchange and for a tunnel. What a client that
is still there gets is judged as far as it must be right in any order; the sanitizers and the harness judge the rest.
"""

import itertools
import signal

import pytest

from support.backend import answer, chunk
from support.client import request
from support.expect import is_passed
from support.http1 import Ended
from support.takeover import takeover
from support.websocket import TEXT, accepting, frame, upgrade

MARK = b"mark-of-this-exchange"
HEAD_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def nothing(_):
    pass


def half_close(end):
    end.half_close()


def close(end):
    end.close()


def reset(end):
    end.reset()


# --- one exchange or tunnel in a given state; each returns both ends ---------------------------------------


def waiting(gateway, backend, partner):
    """The backend has the request and has said nothing."""
    far = takeover(backend)
    client = gateway.client().send(request(fields=partner.authorization))
    return client, far()[0]


def sending(gateway, backend, partner):
    """The client is in the middle of its body."""
    far = takeover(backend)
    data = request("POST", fields=partner.authorization, body=b"x" * 1000)
    client = gateway.client().send(data[:-500])
    return client, far()[0]


def expecting(gateway, backend, partner):
    """The client waits for 100."""
    far = takeover(backend)
    data = request("POST", fields=partner.authorization + "Expect: 100-continue\r\n", body=b"x" * 500)
    client = gateway.client().send(data[:-500])
    return client, far()[0]


def receiving(gateway, backend, partner):
    """The answer has begun."""
    far = takeover(backend, lambda _: HEAD_CHUNKED + chunk(MARK))
    client = gateway.client().send(request(fields=partner.authorization))
    while MARK not in client.reader.buffer:
        client.reader.more()
    return client, far()[0]


def upgrading(gateway, backend, partner):
    """An upgrade that the backend has not answered."""
    far = takeover(backend)
    client = gateway.client().send(upgrade(partner))
    return client, far()[0]


def tunnelled(gateway, backend, partner):
    far = takeover(backend, accepting)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    return client, far()[0]


# --- what the two do ---------------------------------------------------------------------------------------


def pipelines(client):
    client.send(request(target="/widget/next"))


def completes(client):
    client.send(b"x" * 500)


def breaks(client):
    client.send(b"\x01\r\n\r\n")


def speaks(client):
    client.send(frame(TEXT, b"hello", b"abcd"))


def answers(far):
    far.send(answer(body=MARK))


def answers_and_ends(far):
    far.send(answer(body=MARK))
    far.close()


def begins_and_resets(far):
    far.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    far.reset()


def continues(far):
    far.send(b"HTTP/1.1 100 Continue\r\n\r\n")


def talks_nonsense(far):
    far.send(b"\x01\x02\x03\r\n\r\n")


def finishes(far):
    far.send(chunk(MARK) + b"0\r\n\r\n")


def finishes_and_goes_on(far):
    far.send(chunk(MARK) + b"0\r\n\r\n" + answer(body=b"poison"))


def spoils(far):
    far.send(b"zz\r\n")


def switches(far):
    far.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")


def pushes(far):
    far.send(frame(TEXT, MARK))


ENDS = [half_close, close, reset]
CASES = {
    waiting: (
        [nothing, pipelines, breaks, *ENDS],
        [answers, answers_and_ends, begins_and_resets, talks_nonsense, *ENDS],
    ),
    sending: (
        [completes, breaks, *ENDS],
        [answers, answers_and_ends, continues, talks_nonsense, *ENDS],
    ),
    expecting: ([completes, *ENDS], [continues, answers, answers_and_ends, *ENDS]),
    receiving: ([pipelines, *ENDS], [finishes, finishes_and_goes_on, spoils, *ENDS]),
    upgrading: ([speaks, *ENDS], [switches, answers, *ENDS]),
    tunnelled: ([speaks, breaks, *ENDS], [pushes, *ENDS]),
}
ALL = [
    pytest.param(state, mine, theirs, id=f"{state.__name__}-{mine.__name__}-{theirs.__name__}")
    for state, (client_actions, far_actions) in CASES.items()
    for mine, theirs in itertools.product(client_actions, far_actions)
]


def judge(client):
    """Everything that a client reads is an answer to its own request, or the end."""
    try:
        got = client.response()
    except Ended:
        return
    if got.status == 200:
        assert got.body.replace(MARK, b"") == b"", got.body
    assert b"poison" not in client.reader.buffer


@pytest.mark.parametrize("state, mine, theirs", ALL)
@pytest.mark.parametrize("order", ["client first", "backend first"])
def test_at_once(gateway, backend, partner, state, mine, theirs, order):
    client, far = state(gateway, backend, partner)
    gateway.signal(signal.SIGSTOP)
    acts = [(mine, client), (theirs, far)]
    for act, end in acts if order == "client first" else reversed(acts):
        act(end)
    gateway.signal(signal.SIGCONT)
    is_over = theirs not in (half_close, continues, switches)  # the answer is there, or will never be
    if state is not tunnelled and mine not in (close, reset) and is_over:
        judge(client)
    client.reset()
    if theirs not in (close, reset, answers_and_ends, begins_and_resets):
        far.reset()
    gateway.wait_metric("proofgw_exchanges_active", 0)
    gateway.wait_metric("proofgw_tunnels_open", 0)
    is_passed(gateway.client().exchange(fields=partner.authorization))


@pytest.mark.parametrize("state", CASES)
@pytest.mark.parametrize("theirs", [nothing, *ENDS])
@pytest.mark.parametrize("order", ["signal first", "backend first"])
def test_the_end_of_the_gateway_at_the_same_moment(proofgw, backend, partner, state, theirs, order):
    """SIGTERM together with the end of the backend's side, and the client goes too."""
    gateway = proofgw(timeouts={"client_write": "500ms"})
    client, far = state(gateway, backend, partner)
    gateway.signal(signal.SIGSTOP)
    if order == "signal first":
        gateway.signal(signal.SIGTERM)
    theirs(far)
    client.reset()
    if order == "backend first":
        gateway.signal(signal.SIGTERM)
    gateway.signal(signal.SIGCONT)
    assert gateway.wait_exit() == 0
