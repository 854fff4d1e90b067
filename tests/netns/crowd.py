"""A crowd that is not ours, at the ports of somebody else's run.

python crowd.py connect COUNT ADDRESS FIRST LAST WORDS   connections that begin with WORDS (hex)
python crowd.py burst COUNT ADDRESS FIRST LAST WORDS     COUNT at once, again and again
python crowd.py flood RATE ADDRESS PORT WORDS            datagrams, so many a second

Ports that refuse are tried again, as nobody knows when a run begins. Says "there" when it has
COUNT connections at once (those that were closed on it are not counted), made some of its first
burst, or sent its first hundred datagrams. Goes on until its standard input ends, then says how
many it made in all.
"""

import contextlib
import itertools
import resource
import select
import socket
import sys
import time

PAUSE = 0.02
BATCH = 100


def connect(count: int, address: str, first: int, last: int, words: bytes) -> int:
    """Open them, and open new ones for those that get closed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ports = itertools.cycle(range(first, last + 1))
    crowd: dict[int, socket.socket] = {}
    closed = select.epoll()
    made, there = 0, False
    while not is_over(PAUSE if len(crowd) >= count else 0.0):
        for descriptor, _ in closed.poll(0):
            crowd.pop(descriptor).close()
        for _ in range(min(BATCH, count - len(crowd))):
            one = socket.socket()
            try:
                one.settimeout(1.0)
                one.connect((address, next(ports)))
                one.sendall(words)
            except OSError:
                one.close()
                time.sleep(PAUSE)
                break
            crowd[one.fileno()] = one
            closed.register(one, select.EPOLLRDHUP | select.EPOLLIN)
            made += 1
        if len(crowd) >= count and not there:
            there = True
            say("there")
    return made


def burst(count: int, address: str, first: int, last: int, words: bytes) -> int:
    """More at once than any short queue holds."""
    made = 0
    ends = [(address, port) for port in range(first, last + 1)]
    while True:
        crowd = [socket.socket() for _ in range(count)]
        for number, one in enumerate(crowd):
            one.settimeout(0)
            one.connect_ex(ends[number * len(ends) // count])
        over = is_over(10 * PAUSE)
        for one in crowd:
            with one, contextlib.suppress(OSError):  # nobody listens yet, or it waits still
                one.send(words)
                if not made:
                    say("there")
                made += 1
        if over:
            return made


def flood(rate: int, address: str, port: int, words: bytes) -> int:
    """Send at an even pace; who does not listen yet is not noticed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        began, made = time.monotonic(), 0
        while not is_over(0.001):
            due = int((time.monotonic() - began) * rate)
            for _ in range(due - made):
                one.sendto(words, (address, port))
            if made < BATCH <= due:
                say("there")
            made = due
        return made


def is_over(patience: float) -> bool:
    """Whether standard input has ended, waiting so many seconds for it."""
    return bool(select.select([sys.stdin], [], [], patience)[0])


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    what, number, address, *ports, words = sys.argv[1:]
    numbers, opening = [int(port) for port in ports], bytes.fromhex(words)
    if what in ("connect", "burst"):
        meet = connect if what == "connect" else burst
        say(str(meet(int(number), address, numbers[0], numbers[1], opening)))
    else:
        say(str(flood(int(number), address, numbers[0], opening)))
