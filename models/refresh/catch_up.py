"""All targets of a dataset brought up to date: reads what is new, advances each chain, and says what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lodestar.data.errors import DataError
from lodestar.data.seen import Seen
from lodestar.data.workspace import Workspace
from lodestar.models.candidate import Outcome
from lodestar.models.dataset import NewData, TrainingData, load_new_data, load_training_data
from lodestar.models.parameters import Parameters
from lodestar.models.refresh.begin import begun, begun_anew, with_champion
from lodestar.models.refresh.chain import Chain, State
from lodestar.models.refresh.recent import RECENT_ROWS
from lodestar.models.refresh.update import BatchLosses, Options, Step, advance
from lodestar.models.registry.current import Trained
from lodestar.models.rows import Rows

__all__ = ["CaughtUp", "catch_up", "state_after"]

NEVER: Final = 2**62


@dataclass(slots=True)
class CaughtUp:
    """What became of every target.

    Attributes:
        state: to remember; None where nothing is new.
        fingerprint: of the dataset as it is now.
        outcomes: target → what became of it.
        losses: target → errors of the batch, where one was scored.
        skipped: target → why nothing could be learned.
        notes: what was read and inferred.
    """

    state: State | None
    fingerprint: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    losses: dict[str, BatchLosses] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def catch_up(
    workspace: Workspace,
    dataset: str,
    targets: Sequence[str],
    champions: Mapping[str, Trained],
    state: State | None,
    options: Options,
) -> CaughtUp:
    """Read what is new and advance every chain; read all for those that cannot go on from what is remembered.

    Args:
        workspace: where.
        dataset: to bring up to date.
        targets: to begin with where nothing is remembered of them; those that have a chain all go on.
        champions: target → model in use.
        state: what is remembered; None where nothing is.
        options: of an update.
    """
    done = CaughtUp(state, "")
    chains, begin = _sorted(targets, champions, state)
    fresh = [target for target in targets if state and target not in state.chains]
    for seen, group in _groups(chains, state):
        assert state is not None
        new = load_new_data(workspace, dataset, seen, state.nature, [*group, *fresh])
        done.fingerprint = new.fingerprint
        if new.broken:
            begin |= {target: (new.broken, True) for target in (*group, *fresh)}
            continue
        if "arrivals" in new.notes and new.requests:
            begin |= _inferred(done, group, new, options)
            continue
        begin |= {target: (f"{target} is new in the log", False) for target in fresh if target in new.rows}
        _go_on(done, dataset, seen, {target: chains[target] for target in group}, champions, new, options)
    if begin:
        _begin(done, workspace, dataset, begin, champions, state, options)
    for target in fresh:
        if target not in begin:
            done.skipped[target] = "nothing is remembered of it: it begins with the next new requests that have one"
    done.state = None if done.state is state else done.state
    return done


def _inferred(done: CaughtUp, group: Sequence[str], new: NewData, options: Options) -> dict[str, tuple[str, bool]]:
    """Return the targets to fit anew: where arrivals are inferred, each new request moves the others, and features too.

    What a model was told of a request is then not what it is told later: that is no drift, and nothing to learn from.
    """
    done.notes |= new.notes
    told = "arrivals are inferred, and all of them move with every new request"
    if new.requests >= options.every:
        return dict.fromkeys(group, (told, True))
    waiting = f"{new.requests} new requests wait until they are {options.every}: {told}"
    done.outcomes |= {target: Outcome("unchanged", waiting) for target in group}
    return {}


def _sorted(
    targets: Sequence[str], champions: Mapping[str, Trained], state: State | None
) -> tuple[dict[str, Chain], dict[str, tuple[str, bool]]]:
    """Return the chains that go on, and for the other targets why not, and whether a full fit is needed in any case."""
    if state is None or not state.chains:
        return {}, {target: ("nothing is remembered of earlier updates", False) for target in targets}
    beside = {target: with_champion(chain, champions.get(target)) for target, chain in state.chains.items()}
    chains = {target: chain for target, chain in beside.items() if chain is not None}
    others = (target for target in beside if target not in chains)
    return chains, {target: ("another model has come into use since", False) for target in others}


def _groups(chains: Mapping[str, Chain], state: State | None) -> list[tuple[Seen, list[str]]]:
    """Put together the targets that have seen the same: most often all of them."""
    groups: list[tuple[Seen, list[str]]] = []
    for target in chains if state else ():
        assert state is not None
        seen = state.seen[target]
        found = next((group for known, group in groups if known == seen), None)
        if found is None:
            groups.append((seen, [target]))
        else:
            found.append(target)
    return groups


def _go_on(
    done: CaughtUp,
    dataset: str,
    seen: Seen,
    chains: Mapping[str, Chain],
    champions: Mapping[str, Trained],
    new: NewData,
    options: Options,
) -> None:
    """Advance the chains of targets that have seen the same."""
    done.notes |= new.notes
    if not new.requests:
        told = f"nothing new since request {seen.requests}: nothing done"
        done.outcomes |= {target: Outcome("unchanged", told) for target in chains}
        return
    _note_read(done, f"{new.read} requests, {new.requests} of them new")
    data = TrainingData(dataset, new.fingerprint, [], new.rows, {}, {}, None, new.seen)
    for target, before in chains.items():
        rows, chain = new.rows.get(target), before
        if rows is None or not len(rows):
            told = f"none of {new.requests} new requests has a {target}: nothing done"
            done.outcomes[target] = Outcome("unchanged", told)
        else:
            step = _advanced(data, rows, before, champions.get(target), options)
            chain, done.outcomes[target], done.losses[target] = step.chain, step.outcome, step.losses
        _remember(done, target, new.seen, chain)


def _advanced(data: TrainingData, rows: Rows, chain: Chain, champion: Trained | None, options: Options) -> Step:
    """Advance a chain; where its rows cannot be learned from, score them, so that no other target has to wait."""
    try:
        step = advance(data, rows, chain, champion, options)
    except DataError as error:
        deaf, patient = replace(chain, listens_from=NEVER), replace(options, every=NEVER)
        step = advance(data, rows, deaf, champion, patient)
        outcome = Outcome("scored", f"scored and calibrated, nothing fitted: {error}")
        return replace(step, chain=replace(step.chain, listens_from=chain.listens_from), outcome=outcome)
    return replace(step, outcome=_with_cap_told(step.outcome, chain))


def _with_cap_told(outcome: Outcome, chain: Chain) -> Outcome:
    """Say it where a window holds less than the full fit before it, which had no window, because no more is kept."""
    record = chain.trained.record
    had, has = record["window"]["rows"], outcome.trained.record["window"]["rows"] if outcome.trained else 0
    if outcome.mode != "windowed" or record["parameters"]["window_requests"] is not None or had <= RECENT_ROWS:
        return outcome
    told = f"of {had} rows the newest {has}: --incremental keeps {RECENT_ROWS}; a full train fits all"
    return replace(outcome, reason=f"{outcome.reason}; {told}")


def _note_read(done: CaughtUp, told: str) -> None:
    """Say what was read; it comes first, and may be several readings."""
    earlier = done.notes.pop("read", None)
    done.notes = {"read": f"{earlier}; {told}" if earlier else told} | done.notes


def _remember(done: CaughtUp, target: str, seen: Seen, chain: Chain) -> None:
    state = done.state
    assert state is not None
    done.state = State(state.seen | {target: seen}, state.nature, state.chains | {target: chain})


def _begin(
    done: CaughtUp,
    workspace: Workspace,
    dataset: str,
    targets: Mapping[str, tuple[str, bool]],
    champions: Mapping[str, Trained],
    state: State | None,
    options: Options,
) -> None:
    """Read all; fit all anew where that is needed in any case, else where a target cannot go on from its champion."""
    data = load_training_data(workspace, dataset, list(targets))
    done.fingerprint = data.fingerprint
    done.skipped |= data.skipped
    whys = "; ".join(dict.fromkeys(why for why, _ in targets.values()))
    done.notes |= data.notes
    _note_read(done, f"{len(data.request_ids)} requests, all there are: {whys}")
    before = state.chains if state else {}
    outcomes: dict[str, Outcome] = {}
    chains: dict[str, Chain] = {}
    failed: dict[str, DataError] = {}
    for target in data.rows:
        why = targets[target][0] if targets[target][1] else None
        try:
            chain, outcomes[target], step = _begun(
                data, target, why, champions.get(target), before.get(target), options
            )
        except DataError as error:
            failed[target] = error
            continue
        if step is not None:
            done.losses[target] = step.losses
        if chain is not None:
            chains[target] = chain
    if failed and not outcomes and not done.outcomes:
        raise next(iter(failed.values()))
    done.skipped |= {target: str(error) for target, error in failed.items()}
    done.outcomes |= outcomes
    done.state = state_after(data, outcomes, done.state, champions, chains)


def _begun(
    data: TrainingData, target: str, why: str | None, champion: Trained | None, before: Chain | None, options: Options
) -> tuple[Chain | None, Outcome, Step | None]:
    """Begin one target, with the parameters of the model in use, else of the newest."""
    known = champion or (before.trained if before else None)
    parameters = Parameters(**known.record["parameters"]) if known else Parameters()
    return begun_anew(data, target, champion, parameters, options, why, before.batches if before else 0)


def state_after(
    data: TrainingData,
    outcomes: Mapping[str, Outcome],
    before: State | None,
    champions: Mapping[str, Trained],
    chains: Mapping[str, Chain] | None = None,
) -> State:
    """Return what to remember after all of a dataset was read: a chain for each target, begun where it was fitted anew.

    The chains of other targets stay as they were, with what they have seen: the next update reads on from there.

    Args:
        data: all of the dataset.
        outcomes: target → what became of it.
        before: what was remembered.
        champions: target → model in use when it was fitted.
        chains: target → its chain, of those that went on.
    """
    assert data.seen is not None
    after = dict(before.chains) if before else {}
    after |= chains or {}
    for target, outcome in outcomes.items():
        if outcome.trained is None or target in (chains or {}):
            continue
        batches = before.chains[target].batches if before and target in before.chains else 0
        outcome.trained.record["seen"] = data.seen.to_dict()
        after[target] = begun(
            outcome.trained, data.rows[target], outcome.promoted, batches, champion=champions.get(target)
        )
    seen = dict(before.seen) if before else {}
    return State(seen | dict.fromkeys(outcomes, data.seen), data.nature, after)
