"""Which calls of a program are needed once some of them have been replaced."""

from __future__ import annotations

from collections.abc import Sequence, Set

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.constants import Aliases


def needed(calls: Sequence[Call], outputs: Sequence[str], state: Set[str], used: Set[str]) -> tuple[Call, ...]:
    """Calls without those that nothing uses any more.

    Args:
        calls: of the program, as they are now.
        outputs: of it.
        state: calls that go as soon as nothing needs them, even if they write to something.
        used: names that something used before; what nothing ever used stays.
    """
    wanted, kept = set(outputs), list[Call]()
    for call in reversed(calls):
        refs = call.references()
        in_place = Aliases.in_place(call)
        written = refs[0] if refs and in_place else None
        idle = call.name in state or (call.name in used and not in_place)
        if "_assert" in call.target or (idle and call.name not in wanted and written not in wanted):
            continue
        kept.append(call)
        wanted |= set(refs)
    return tuple(reversed(kept))
