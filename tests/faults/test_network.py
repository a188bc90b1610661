"""Who a node speaks to: its peers, the local network's multicast, and nobody else."""

import ipaddress
import re
import subprocess

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
            watch = ["strace", "-f", "-qq", "-s", "0", "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
            nodes.append(Cairn(folder / name, prefix))
            nodes[-1].watch = [*watch, "-o", str(trace)]
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
            assert seen & local, f"the trace shows no traffic at all: {seen}"
            strangers = {found for found in seen - local - MULTICAST if not harmless(found)}
            assert not strangers, f"it spoke to {strangers}"


def addresses(trace: str) -> set:
    """IP addresses that system calls name."""
    found = re.findall(r'inet_addr\("([^"]+)"\)', trace)
    found += re.findall(r'inet_pton\(AF_INET6, "([^"]+)"', trace)
    return set(found)


def harmless(text: str) -> bool:
    """Loopback, link-local, or the unspecified address: none of them leaves the local network."""
    found = ipaddress.ip_address(text.split("%")[0])
    return found.is_loopback or found.is_link_local or found.is_unspecified
