"""Who a node speaks to: its peers, the local network's multicast, and nobody else."""

import ipaddress
import re
import subprocess
import sys

from cairn import Cairn, RUNNING, wait_for
from folders import MIB, sample
from two_nodes import local_network

MEET_SECONDS = 30
MULTICAST = {"224.0.0.251", "ff02::fb"}


def launch(node: Cairn, *arguments):
    """Starts a node in a namespace where only the control socket can be reached from here."""
    with open(node.log, "wb") as log:
        node.process = subprocess.Popen(
            node.command("up", "--gateway", "127.0.0.1:0", *arguments),
            env=node.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    RUNNING.add(node)


def running(node: Cairn):
    """What `status` says of a running node, or None."""
    done = node.run("status", "--json", seconds=30)
    assert node.process.poll() is None, node.logged()
    return done.returncode == 0 and '"running":true' in done.stdout.replace(" ", "")


def test_nodes_of_a_local_network_meet_and_share(folder, rng):
    with local_network() as ((first, _), (second, _)):
        nodes = [Cairn(folder / "a", first), Cairn(folder / "b", second)]
        try:
            for node in nodes:
                launch(node)
            for node in nodes:
                wait_for(lambda node=node: running(node), 30, f"up: {node.logged()}")
            for node in nodes:
                wait_for(
                    lambda node=node: node.json("peers")["peers"],
                    MEET_SECONDS,
                    f"it found the other by itself; its log: {node.logged()}",
                )
            source = sample(folder / "tree", rng, large=(3 * MIB,))
            pushed = nodes[0].push(source, "model")
            pulled = nodes[1].json("pull", pushed["repo"], "--to", str(folder / "out"))
            assert pulled["network_bytes"] >= 3 * MIB
            addresses = nodes[0].json("status")["listen_addrs"]
            assert any("/ip4/10.77.0.1/" in address for address in addresses), addresses
            assert all("/p2p/" in address for address in addresses), addresses
        finally:
            for node in nodes:
                node.close()


def test_no_outside_host_is_ever_contacted(folder, rng):
    """Every address that two nodes with default settings send to, as the system was asked for it."""
    with local_network() as ((first, address), (second, other)):
        local = {address, other}
        traces = [folder / "a.strace", folder / "b.strace"]
        nodes = []
        for name, prefix, trace in (("a", first, traces[0]), ("b", second, traces[1])):
            nodes.append(Cairn(folder / name, prefix))
            nodes[-1].watch = watch(trace)
        try:
            for node in nodes:
                verbs, node.prefix = node.prefix, [*node.prefix, *node.watch]
                launch(node)
                node.prefix = verbs
            for node in nodes:
                wait_for(lambda node=node: running(node), 60, f"up: {node.logged()}")
            wait_for(lambda: nodes[1].json("peers")["peers"], 60, "they met")
            source = sample(folder / "tree", rng, large=(2 * MIB,))
            pushed = nodes[0].push(source, "model")
            nodes[1].json("pull", pushed["repo"])
            for node in nodes:
                assert node.stop(20) == 0
        finally:
            for node in nodes:
                node.close()
        for trace in traces:
            seen = addresses(trace.read_text(errors="replace"))
            print(sorted(seen))
            assert seen & local, f"the trace shows no traffic at all: {seen}"
            strangers = {found for found in seen - local - MULTICAST if not harmless(found)}
            assert not strangers, f"it spoke to {strangers}"


def test_the_watch_sees_each_way_to_send(folder):
    """The test above could not fail if this did not hold."""
    program = """
import socket
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp().connect(("127.9.9.1", 9))
joined = udp()
joined.connect(("127.9.9.2", 9))
joined.send(b"x")
udp().sendto(b"x", ("127.9.9.3", 9))
udp().sendmsg([b"x"], [], 0, ("127.9.9.4", 9))
socket.socket().connect_ex(("127.9.9.5", 9))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.sendto(b"x", ("::ffff:127.9.9.6", 9))
"""
    trace = folder / "trace"
    subprocess.run([*watch(trace), sys.executable, "-c", program], check=True)
    # The tracer ends after what it traces.
    wanted = {f"127.9.9.{number}" for number in (2, 3, 4, 5, 6)}
    seen = wait_for(
        lambda: (found := addresses(trace.read_text())) >= wanted and found, 10, "the trace is whole"
    )
    assert seen == wanted


def watch(trace) -> list:
    """The prefix of a command whose sending is noted."""
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    # Beside the command, not above it: signals reach the command.
    return ["strace", "-D", "-f", "-yy", "-qq", "-s", "0", "-e", calls, "-o", str(trace)]


def addresses(trace: str) -> set:
    """IP addresses that something was sent to, or a connection was made to.

    Connecting a UDP socket is neither: it asks the system which of its own addresses it would use.
    """
    found = set()
    for line in trace.splitlines():
        if re.search(r"\bconnect\(\d+<UDP(v6)?:", line):
            continue
        found.update(re.findall(r'inet_addr\("([^"]+)"\)', line))
        found.update(re.findall(r'inet_pton\(AF_INET6, "([^"]+)"', line))
        # Where a socket is connected, its calls name no address.
        found.update(re.findall(r"<UDP[^>]*->\[?([0-9a-f.:]+?)\]?:\d+\]>", line))
    return {str(plain(address)) for address in found}


def plain(text: str):
    """An address as IPv4 where it is one."""
    address = ipaddress.ip_address(text.split("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def harmless(text: str) -> bool:
    """Loopback, link-local, or the unspecified address: none of them leaves the local network."""
    found = ipaddress.ip_address(text)
    return found.is_loopback or found.is_link_local or found.is_unspecified
