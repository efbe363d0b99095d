"""What runs is compared with what UFW's files make, rule by rule; others' rules stay unless they accept."""

from __future__ import annotations

from plugins.modules import running_firewall as subject

WANTED = """
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
:ufw-in - [0:0]
:ufw-user - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -j ufw-in
-A OUTPUT -j ufw-user
-A ufw-in -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-in -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j DROP
COMMIT
"""
TOLERATED = ["DOCKER*", "f2b-*"]


def plan(live: str) -> subject.Plan:
    return subject.Plan(subject.Table(WANTED), subject.Table(live), TOLERATED)


def with_rules(*rules: str) -> str:
    return WANTED.replace("COMMIT", "\n".join([*rules, "COMMIT"]))


def test_what_runs_as_it_should_is_left_alone():
    found = plan(WANTED.replace("[0:0]", "[17:4711]"))
    assert (found.actions, found.strangers, found.commands) == ([], [], [])


def test_nothing_loaded_is_one_line():
    found = plan("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
    assert found.actions == ["UFW's rules are not loaded: loads them"]
    assert ":INPUT DROP [0:0]" in found.commands
    assert found.commands[-2:] == ["COMMIT", ""]


def test_a_rule_that_was_taken_out_is_put_in():
    found = plan(WANTED.replace("-A ufw-in -p tcp -m tcp --dport 80 -j ACCEPT\n", ""))
    assert found.actions == ["ufw-in: puts in: -A ufw-in -p tcp -m tcp --dport 80 -j ACCEPT"]
    # Chains are named, which empties them, before they are filled: all in one step.
    assert found.commands.index(":ufw-in - [0:0]") < found.commands.index(
        "-A ufw-in -p tcp -m tcp --dport 22 -j ACCEPT"
    )
    assert not any(command.startswith("-D") for command in found.commands)


def test_another_order_is_not_the_same():
    lines = WANTED.splitlines()
    first, second = (lines.index(line) for line in lines if line.startswith("-A ufw-in"))
    lines[first], lines[second] = lines[second], lines[first]
    assert plan("\n".join(lines)).actions == ["ufw-in: the order of its rules is another"]


def test_a_stranger_that_accepts_is_taken_out():
    found = plan(with_rules("-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"))
    assert found.actions == [
        "INPUT: takes out a rule of others that accepts: -A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"
    ]
    assert "-D INPUT -p tcp -m tcp --dport 8080 -j ACCEPT" in found.commands


def test_a_strangers_chain_that_accepts_is_no_better():
    live = with_rules(
        "-A INPUT -j one", "-A one -j two", '-A two -m comment --comment "a b" -g three', "-A three -j ACCEPT"
    )
    assert plan(live).actions == ["INPUT: takes out a rule of others that accepts: -A INPUT -j one"]


def test_chains_that_lead_in_a_circle_come_to_an_end():
    found = plan(with_rules("-A INPUT -j one", "-A one -j two", "-A two -j one"))
    assert (found.actions, found.strangers) == ([], ["-A INPUT -j one"])


def test_what_only_bars_stays():
    found = plan(with_rules("-A INPUT -s 192.0.2.9/32 -j DROP", "-A INPUT -j f2b-sshd", "-A f2b-sshd -j REJECT"))
    assert (found.actions, found.strangers) == ([], ["-A INPUT -s 192.0.2.9/32 -j DROP"])


def test_docker_keeps_its_own_on_the_way_through():
    docker = (
        "-A FORWARD -j DOCKER-USER",
        "-A FORWARD -o docker0 -j DOCKER",
        "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
        "-A DOCKER -d 172.17.0.2/32 -j ACCEPT",
        "-A DOCKER-USER -j RETURN",
    )
    found = plan(with_rules(*docker))
    assert (found.actions, found.strangers) == ([], [])
    # Nobody else may say that it is Docker.
    assert plan(with_rules("-A FORWARD -i docker0 -j ACCEPT")).actions
    assert plan(with_rules(*docker, "-A INPUT -i docker0 -j ACCEPT")).actions


def test_a_way_in_that_is_missing_is_made_anew_in_order():
    found = plan(WANTED.replace("-A INPUT -j ufw-in\n", ""))
    assert found.actions == ["INPUT: the way into UFW's chains is not as UFW made it"]
    assert "-A INPUT -j ufw-in" in found.commands
