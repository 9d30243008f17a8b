"""Every bound of time, at its last moment inside and its first one outside."""

from collections.abc import Iterator

from tests.conformance.attestation.catalogue.case import Case, Policy, Room, with_chain
from tests.conformance.attestation.forge import certificates, der
from tests.conformance.attestation.forge.certificates import DAY, HOUR, NOW, Chain

SECOND = 1000
BELOW = ("regional", "zonal", "instance", "leaf")
LEEWAYS = (0, 60 * SECOND, HOUR)


def cases() -> Iterator[Case]:
    room = Room("time")
    for level in BELOW:
        _validity(room, level)
    _root(room)
    _age(room)
    return iter(room)


def _lasting(leeway: int) -> Policy:
    return Policy(max_age_ms=1000 * DAY, leeway_ms=leeway)


def _pair(
    room: Room,
    name: str,
    rule: str,
    code: str,
    document: bytes,
    policy: Policy,
    times: tuple[int, int],
) -> None:
    inside, outside = times
    room.accept(
        f"{name}-inside", "the last moment inside", rule, document, time_ms=inside, policy=policy
    )
    room.refuse(
        f"{name}-outside",
        "the first moment outside",
        rule,
        code,
        document,
        time_ms=outside,
        policy=policy,
        twin=f"{name}-inside",
    )


def _validity(room: Room, level: str) -> None:
    """This certificate alone has the bound; the others of the chain last."""
    begin, end = NOW - 10 * SECOND, NOW + 600 * SECOND

    def bounds(chain: Chain) -> None:
        for name in BELOW:
            link = chain.links[name]
            link.begin, link.end = der.time(NOW - DAY), der.time(NOW + DAY)
        chain.links[level].begin, chain.links[level].end = der.time(begin), der.time(end)

    document = with_chain(bounds)
    early = with_chain(bounds, timestamp=begin - 2 * HOUR)
    for leeway in LEEWAYS:
        name, policy = f"{level}-%s-leeway-{leeway // SECOND}", _lasting(leeway)
        # The last second counts whole (RFC 5280 4.1.2.5: "inclusive").
        over = end + SECOND + leeway
        _pair(room, name % "end", "C6", "UntrustedChain", document, policy, (over - 1, over))
        first = begin - leeway
        _pair(room, name % "begin", "C6", "UntrustedChain", early, policy, (first, first - 1))


def _root(room: Room) -> None:
    """The pinned root has an end as well."""
    end = NOW + 600 * SECOND
    chain = certificates.chain()
    chain.links["root"].end = der.time(end)
    root = chain.root

    def shorter(changed: Chain) -> None:
        changed.links["root"].end = der.time(end)

    over = end + SECOND
    for name, at, code in (("inside", over - 1, None), ("outside", over, "UntrustedChain")):
        values = {"time_ms": at, "policy": _lasting(0), "root": root}
        if code is None:
            room.accept(
                f"root-end-{name}", "the last moment inside", "C1", with_chain(shorter), **values
            )
        else:
            values["twin"] = "root-end-inside"
            room.refuse(
                f"root-end-{name}", "the first outside", "C1", code, with_chain(shorter), **values
            )


def _age(room: Room) -> None:
    def lasting(chain: Chain) -> None:
        for name in BELOW:
            link = chain.links[name]
            link.begin, link.end = der.time(NOW - DAY), der.time(NOW + DAY)

    document = with_chain(lasting)
    for age in (1, 10 * SECOND, 3 * HOUR):
        for leeway in (0, 60 * SECOND):
            # The leeway is for a clock that is slow; it makes no document younger.
            name = f"age-{age}-leeway-{leeway // SECOND}"
            policy = Policy(max_age_ms=age, leeway_ms=leeway)
            _pair(room, name, "T2", "StaleDocument", document, policy, (NOW + age, NOW + age + 1))
    for leeway in LEEWAYS:
        policy = _lasting(leeway)
        slow = NOW - leeway
        name = f"future-leeway-{leeway // SECOND}"
        _pair(room, name, "T1", "StaleDocument", document, policy, (slow, slow - 1))
    policy = _lasting(HOUR)
    for name, at in (("epoch", 0), ("end", 2**53 - 1)):
        room.refuse(
            f"clock-{name}",
            "a clock of another age",
            "C6",
            "UntrustedChain",
            document,
            time_ms=at,
            policy=policy,
        )
