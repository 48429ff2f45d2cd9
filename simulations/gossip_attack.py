"""Gossip under attack by Sybils, with the engines that run over libp2p, after the attacks of "GossipSub-v1.1 Evaluation
Report" (Vyzovitis and others, 2020).

    python -m simulations.gossip_attack [--honest 100] [--sybils 400] [--sybil-links 50] [--png FILE]

Honest nodes have 20 links among themselves, 25 ms ± 10 %, D = 8. There are four Sybils (gossip_adversary.py) for each,
and each of them dials `--sybil-links` honest nodes, so that an honest node has 200 links to Sybils at full size. Random
honest nodes publish `--rate` messages a second, from soon after the start to the end. Measured are the messages of 40
seconds from when the attack begins, beside the same of the same network without Sybils.

- eclipse one: all Sybils dial one node when the meshes stand, and pass nothing on. Measured is what that node gets.
- eclipse all: the same against everybody.
- censor: they pass on everything but one node's messages, those being measured; that node publishes half of all.
- cold boot: they are there first, and honest nodes find one another among them.
- covert flash: they behave until meshes are full of them, then drop everything all at once.
- infiltration: as covert flash, but a fifth of the Sybils' links were dialled by honest nodes, so that most of the
  peers that these trust because they dialled them themselves are Sybils. Beyond what meshes withstand: until scores
  have cleared them, messages come by IHAVE and IWANT alone, within one or two heartbeats.
- colocation: as eclipse all, from four addresses.
- spam: they forge messages, advertise ids that nobody has, ask for each message again and again, and GRAFT in backoff.
- storm: they PRUNE and GRAFT everybody each second.

Each with scores and, for comparison, without. Times are virtual. Six minutes and 400 MB at full size, half of it with
`--scored-only`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from swarmp2p.gossip.config import GossipConfig, TopicConfig
from swarmp2p.gossip.score_config import ScoreConfig, TopicScoreConfig
from swarmp2p.identity import PeerId
from swarmp2p.transport.link import UniformLink
from swarmp2p.transport.sim import random_for
from swarmp2p.transport.sim_peers import sim_address, sim_peer

from .gossip_adversary import Plan, Sybil
from .gossip_swarm import TOPIC, GossipSwarm, Message, Spread
from .graphs import regular_graph
from .report import Report, finite, mean, parser_for, script, tell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINKS = 20
DELAY_S = 0.025
JITTER = 0.1
HOSTS = 4  # of colocated Sybils
DIALLED = 0.2  # of infiltrating Sybils' links
_SYBILS_FROM = 1 << 20  # of sim_peer
_HOSTS_FROM = 1 << 20  # of sim_address
_COME_S = 20.0  # Sybils of most attacks
_FLASH_S = 40.0  # covert ones strike
_AFTER_S = 10.0  # for the last message to be everywhere, or never
_COLD_S = 2.0  # Sybils of a cold boot are alone with each honest node


_PLAIN = GossipConfig(mesh_degree=8, mesh_low=6, mesh_high=12, mesh_outbound=4)
"""D = 8 with the bounds that Ethereum's consensus networks use, and the most outbound peers that go with it: with the
default of 2 the p99 of cold boot and covert flash is 1.3 times that without Sybils instead of 1.05."""
UNSCORED = replace(_PLAIN, score=ScoreConfig(invalid_weight=0.0, colocation_weight=0.0, behaviour_weight=0.0))


def scored(rate: float) -> GossipConfig:
    """As a deployment would have it that expects so many messages a second."""
    topic = TopicConfig(score=TopicScoreConfig.for_rate(rate, _PLAIN.mesh_degree, rate))
    return replace(_PLAIN, topics={TOPIC: topic})


_SILENT = Plan(strike_s=_COME_S)


@dataclass(frozen=True, slots=True)
class Attack:
    """What an attacker does.

    plan: of each Sybil; its strike_s is when the measured time begins. come_s: when Sybils dial. honest_come_s: when
    honest nodes dial one another. target_only: all Sybils dial one node, and what it gets is measured. censors: the
    Sybils drop the first node's messages alone, and those are measured. hosts: addresses that Sybils share; 0: each has
    its own.
    """

    name: str
    plan: Plan = _SILENT
    come_s: float = _COME_S
    honest_come_s: float = 0.0
    target_only: bool = False
    censors: bool = False
    dialled: float = 0.0
    hosts: int = 0


ATTACKS = (
    Attack("eclipse one", target_only=True),
    Attack("eclipse all"),
    Attack("censor", censors=True),
    Attack("cold boot", Plan(strike_s=_COLD_S), come_s=0.0, honest_come_s=_COLD_S),
    Attack("covert flash", Plan(strike_s=_FLASH_S), come_s=0.0, honest_come_s=_COLD_S),
    Attack("infiltration", Plan(strike_s=_FLASH_S), come_s=0.0, honest_come_s=_COLD_S, dialled=DIALLED),
    Attack("colocation", hosts=HOSTS),
    Attack("spam", Plan(strike_s=_COME_S, impatient=True, lies=100, forged=2, asks=3)),
    Attack("storm", Plan(strike_s=_COME_S, storm=True)),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a run is. sybil_links: of each Sybil. rate: messages a second. measured_s: of publications."""

    honest: int = 100
    sybils: int = 400
    sybil_links: int = 50
    rate: float = 5.0
    measured_s: float = 40.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attack. sybil_share: of mesh places of honest nodes, those that Sybils hold at the end. sent:
    RPCs of all nodes. messages: the measured ones, in order."""

    spread: Spread
    sybil_share: float
    sent: int
    messages: Sequence[Message]


def suffer(attack: Attack, seed: int, sizes: Sizes, config: GossipConfig, *, sybils: bool = True) -> Outcome:
    """Run one attack; without its Sybils, the same network and publications."""
    swarm = GossipSwarm(sizes.honest, seed, UniformLink(DELAY_S, JITTER), config)
    honest, strike_s = list(swarm.peers), attack.plan.strike_s
    graph = regular_graph(sizes.honest, LINKS, swarm.rng)
    swarm.sim.call(lambda: swarm.connect(graph), attack.honest_come_s)
    target = honest[0]
    gang = _invade(swarm, attack, seed, sizes) if sybils else []
    count = round((strike_s + sizes.measured_s - attack.honest_come_s) * sizes.rate)
    for number in range(count):
        often = attack.censors and number % 2 == 0
        source = target if often else swarm.rng.choice(honest[1:])
        swarm.publish_later(source, attack.honest_come_s + 1.0 + number / sizes.rate)
    swarm.sim.run(strike_s + sizes.measured_s + _AFTER_S)
    places = [other for peer in honest for other in swarm.router(peer).mesh(TOPIC)]
    share = mean([float(other not in swarm.expected) for other in places])
    measured = _measured(swarm, attack, target)
    sent = swarm.sim.sent - sum(sybil.sent for sybil in gang)
    return Outcome(swarm.deliveries.spread(measured), share, sent, measured)


def _invade(swarm: GossipSwarm, attack: Attack, seed: int, sizes: Sizes) -> list[Sybil]:
    """Have the Sybils come. Returns the list that holds them then."""
    gang: list[Sybil] = []
    rng, honest = random_for(seed, "sybils"), list(swarm.peers)
    plan = replace(attack.plan, censored=(honest[0],)) if attack.censors else attack.plan

    def come(number: int) -> None:
        peer = sim_peer(_SYBILS_FROM + number)
        source = sim_address(_HOSTS_FROM + number % attack.hosts) if attack.hosts else None
        gang.append(Sybil(peer, TOPIC, plan, rng))
        swarm.sim.add(peer, gang[-1], source=source)
        victims = (
            honest[:1] if attack.target_only else rng.sample(honest, min(sizes.sybil_links, len(honest)))
        )
        for victim in victims:
            if attack.dialled and rng.random() < attack.dialled:
                swarm.sim.connect(victim, peer)
            else:
                swarm.sim.connect(peer, victim)

    def all_come() -> None:
        for number in range(sizes.sybils):
            come(number)

    swarm.sim.call(all_come, attack.come_s)
    return gang


def _measured(swarm: GossipSwarm, attack: Attack, target: PeerId) -> list[Message]:
    """Of the messages published under attack, those that it is about, and of these what counts."""
    messages = [message for message in swarm.deliveries.messages if message.at >= attack.plan.strike_s]
    if attack.censors:
        return [message for message in messages if message.source == target]
    if attack.target_only:
        return [message.only(target) for message in messages]
    return messages


# The report -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compared:
    """One attack. without: Sybils. unscored: nodes that keep no scores."""

    attack: Attack
    without: Outcome
    scored: Outcome
    unscored: Outcome | None

    @property
    def slower(self) -> float:
        """How many times longer 99 % of the deliveries take."""
        return self.scored.spread.ms(0.99) / max(self.without.spread.ms(0.99), 1e-9)


def run(
    seed: int, sizes: Sizes, attacks: Sequence[Attack] = ATTACKS, unscored: bool = True
) -> tuple[Report, list[Compared]]:
    """Run all; returns the report, and what it was made of for the picture."""
    started = time.process_time()
    report: Report = {
        "seed": seed,
        "honest": sizes.honest,
        "sybils": sizes.sybils,
        "sybil_links": sizes.sybil_links,
        "rate": sizes.rate,
        "measured_s": sizes.measured_s,
    }
    compared: list[Compared] = []
    scores = scored(sizes.rate)
    for attack in attacks:
        each = Compared(
            attack,
            suffer(attack, seed, sizes, scores, sybils=False),
            suffer(attack, seed, sizes, scores),
            suffer(attack, seed, sizes, UNSCORED) if unscored else None,
        )
        compared.append(each)
        report |= _shown(each)
    report["wall_s"] = time.process_time() - started
    return report, compared


def _shown(each: Compared) -> Report:
    name, spread, before = each.attack.name.replace(" ", "_"), each.scored.spread, each.without.spread
    report: Report = {
        f"{name}_delivered": spread.share,
        f"{name}_missed": spread.missed,
        f"{name}_p50_ms": spread.ms(0.5),
        f"{name}_p99_ms": spread.ms(0.99),
        f"{name}_without_p99_ms": before.ms(0.99),
        f"{name}_p99_ratio": each.slower,
        f"{name}_last_ms": spread.ms(1.0),
        f"{name}_sybils_in_meshes": each.scored.sybil_share,
        f"{name}_honest_rpcs_ratio": each.scored.sent / max(each.without.sent, 1),
    }
    if each.unscored is not None:
        report |= {
            f"{name}_unscored_delivered": each.unscored.spread.share,
            f"{name}_unscored_p99_ms": each.unscored.spread.ms(0.99),
            f"{name}_unscored_sybils_in_meshes": each.unscored.sybil_share,
        }
    return report


def draw(figure: Figure, compared: Sequence[Compared]) -> None:
    """For each attack, what came how late, with and without."""
    panels = list(figure.subplots(2, math.ceil(len(compared) / 2), squeeze=False).flat)
    for axes in panels[len(compared) :]:
        axes.set_axis_off()
    for axes, each in zip(panels, compared, strict=False):
        for label, outcome in (
            ("no Sybils", each.without),
            ("scores", each.scored),
            ("no scores", each.unscored),
        ):
            if outcome is None or not outcome.spread.took_s:
                continue
            in_order = sorted(outcome.spread.took_s)
            expected = len(in_order) + outcome.spread.missed
            axes.semilogy(
                [took * 1000.0 for took in in_order],
                [max(1.0 - (place + 1) / expected, 1e-7) for place in range(len(in_order))],
                label=label,
            )
        axes.set_ylim(1e-5, 1.1)
        axes.set_title(each.attack.name)
        axes.set_xlabel("ms since publication")
        axes.set_ylabel("still to come")
        axes.legend()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for("simulations.gossip_attack", __doc__)
    full = Sizes()
    names = [attack.name for attack in ATTACKS]
    parser.add_argument("--honest", type=int, default=full.honest, help="nodes (100)")
    parser.add_argument("--sybils", type=int, default=full.sybils, help="nodes (400)")
    parser.add_argument("--sybil-links", type=int, default=full.sybil_links, help="of each Sybil (50)")
    parser.add_argument("--rate", type=finite, default=full.rate, help="messages a second (5)")
    parser.add_argument("--measured", type=finite, default=full.measured_s, help="seconds (40)")
    parser.add_argument(
        "--attacks",
        nargs="+",
        choices=names,
        default=names,
        metavar="ATTACK",
        help="some of the above, those of two words in quotes (all)",
    )
    parser.add_argument("--scored-only", action="store_true", help="leave the runs without scores out")
    options = parser.parse_args(arguments)
    if options.honest <= LINKS or options.sybils < 1 or options.sybil_links < 1:
        parser.error(f"more than {LINKS} honest nodes, a Sybil and a link of it are needed")
    if options.rate <= 0 or options.measured <= 0:
        parser.error("messages and time are needed")
    sizes = Sizes(options.honest, options.sybils, options.sybil_links, options.rate, options.measured)
    chosen = [attack for attack in ATTACKS if attack.name in options.attacks]
    report, compared = run(options.seed, sizes, chosen, not options.scored_only)
    tell(report, options, lambda figure: draw(figure, compared))


if __name__ == "__main__":
    script(main)
