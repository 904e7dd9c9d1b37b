"""The ledger's SQL: one text for both databases, what differs between them put in by name.

Parameters are written ``%(name)s``. Columns of the counted row are prefixed ``a``, of the call as it was ``old``.
Neither ``max`` nor ``least`` meets a NULL here: the databases disagree about those.
"""

from __future__ import annotations

from .policy import POSTGRESQL

# PostgreSQL evaluates the subquery once, when the statement first needs it: one value, and usable with an index.
_CLOCK = "CAST(extract(epoch FROM {}) * 1000000 AS bigint)"
NOW = f"(SELECT {_CLOCK.format('clock_timestamp()')})" if POSTGRESQL else "%(now)s"
_LEAST, _GREATEST = ("least", "greatest") if POSTGRESQL else ("min", "max")
_NO_LIMIT = 2**63 - 1

# The time of a statement that changes a counted row. On PostgreSQL the statement may wait for the row, and a clock read
# before the wait would admit after the expiry and on the day before. So one CTE (`l`, `old`) locks the row, and `t`
# reads the clock from it: a row of that CTE is there only once it is locked. An expression in the locking CTE itself
# would be evaluated before the lock, and again only if the row was changed meanwhile. `t` is materialized, so that the
# whole statement sees one value.
_AFTER_LOCK = "t AS MATERIALIZED (SELECT {} FROM (SELECT clock_timestamp() AS clock FROM {} OFFSET 0) AS c)"
_ROW_NOW = "t.now" if POSTGRESQL else "%(now)s"

# What counts today and this month: a day only grows, for clocks may disagree around midnight. Months are day / 100.
# Two kinds of rows are corrected before anything is counted on them (grants/corrections.py): those of a day more than
# two days ahead, and those that go on to a new day while the ledger has calls of days after theirs, because the clock
# went back. The ledger is asked once a day, by the first call.
_LAST_DAY = "CAST(to_char(t.local + interval '2 days', 'YYYYMMDD') AS integer)" if POSTGRESQL else "%(last_day)s"
_LEDGER_IS_AHEAD = """EXISTS (SELECT 1 FROM grants_dailytotal AS d WHERE d.grant_id = a.grant_id AND d.day > a.day)
    OR a.in_flight > 0 AND EXISTS (
      SELECT 1 FROM grants_call AS d WHERE d.finished_at IS NULL AND d.grant_id = a.grant_id AND d.day > a.day)"""
_DAY_IS_RIGHT = f"""(a.day = t.day OR a.day = 0 OR a.day > t.day AND a.day <= {_LAST_DAY}
    OR a.day < t.day AND NOT ({_LEDGER_IS_AHEAD}))"""
_DAY_USED = "CASE WHEN t.day > a.day THEN 0 ELSE a.day_{0} END"
_MONTH_USED = "CASE WHEN t.day / 100 > a.day / 100 THEN 0 ELSE a.month_{0} END"


def _used_of(period: str) -> str:
    return f"({period.format('spent')}) - ({period.format('reserved')})"


# The most that this call can get: its bound, or what the tightest cap leaves of it.
_ROOM = f"""{_LEAST}(%(want)s,
        COALESCE(a.max_cost - a.spent - a.reserved, {_NO_LIMIT}),
        COALESCE(a.max_cost_per_day - {_used_of(_DAY_USED)}, {_NO_LIMIT}),
        COALESCE(a.max_cost_per_month - {_used_of(_MONTH_USED)}, {_NO_LIMIT}))"""
_REQUESTS_CLOCK = f"{_GREATEST}(a.requests_clock, t.now) + %(request_advance)s"
_TOKENS_CLOCK = f"{_GREATEST}(a.tokens_clock, t.now) + %(token_advance)s"

# What an admission and a refusal tell of the row, in the order of limits.Standing.
STANDING = (
    "day, requests, in_flight, spent, reserved, day_spent, day_reserved, month_spent, month_reserved, "
    "requests_clock, tokens_clock, tokens_excess"
)

# What the time can only bring nearer, and what it can end.
_ROOM_IS_LEFT = f"""a.grant_id = %(grant)s AND a.revision = %(revision)s AND a.closed_at IS NULL
  AND (a.max_requests IS NULL OR a.requests < a.max_requests)
  AND (a.max_concurrency IS NULL OR a.in_flight < a.max_concurrency)
  AND (%(request_advance)s = 0 OR {_REQUESTS_CLOCK} - t.now <= %(request_tolerance)s)
  AND (%(token_advance)s = 0 OR {_TOKENS_CLOCK} - t.now <= %(token_tolerance)s)
  AND {_ROOM} >= %(least)s"""
_IN_TIME = f"a.grant_id = %(grant)s AND a.expires_at > t.now AND {_DAY_IS_RIGHT}"

# Rates are GCRA: the clock runs ahead of the time by what was admitted, and may do so by the tolerance at most.
# Their parameters were computed from limits of this very revision.
_ADMIT = f"""
UPDATE grants_allowance AS a SET
    requests = a.requests + %(counted)s,
    in_flight = a.in_flight + 1,
    last_reserved = {_ROOM},
    reserved = a.reserved + {_ROOM},
    day_requests = {_DAY_USED.format("requests")} + %(counted)s,
    day_spent = {_DAY_USED.format("spent")},
    day_reserved = {_DAY_USED.format("reserved")} + {_ROOM},
    month_spent = {_MONTH_USED.format("spent")},
    month_reserved = {_MONTH_USED.format("reserved")} + {_ROOM},
    requests_clock = {_REQUESTS_CLOCK},
    tokens_clock = {_TOKENS_CLOCK},
    tokens_excess = CASE WHEN %(token_advance)s = 0 THEN a.tokens_excess ELSE 0 END,
    day = CASE WHEN t.day > a.day THEN t.day ELSE a.day END
FROM {"t" if POSTGRESQL else "(SELECT %(now)s AS now, %(today)s AS day) AS t"}
WHERE {_IN_TIME if POSTGRESQL else f"{_ROOM_IS_LEFT} AND {_IN_TIME}"}
RETURNING """

_CALL_COLUMNS = (
    "id, grant_id, worker, jti, kid, route, model, stream, counted, tokens_reserved, tokens_advance, estimated, "
    "outcome, started_at, reserved, day, tokens_until"
)
_CALL_VALUES = (
    "%(id)s, %(grant)s, %(worker)s, %(jti)s, %(kid)s, %(route)s, %(model)s, %(stream)s, %(counted)s, %(tokens)s, "
    "%(token_advance)s, %(no)s, 'open', {}"
)
_OUT = f"last_reserved, tokens_refunded, {STANDING}"

_TIMES = (
    f"{_CLOCK.format('clock')} AS now, CAST(to_char(clock AT TIME ZONE %(zone)s, 'YYYYMMDD') AS integer) AS day, "
    "clock AT TIME ZONE %(zone)s AS local"
)
# The first look finds most refusals: they neither wait for the row nor write a lock into it. A row that was changed
# during the wait is looked at again. The clock of this look is from before the wait, which can only refuse more.
_LOCK_ROW = f"""SELECT 1
    FROM grants_allowance AS a, (SELECT {_TIMES} FROM (SELECT clock_timestamp() AS clock OFFSET 0) AS c OFFSET 0) AS t
    WHERE {_ROOM_IS_LEFT} FOR NO KEY UPDATE OF a"""

PG_ADMIT = (
    f"WITH l AS MATERIALIZED ({_LOCK_ROW}), {_AFTER_LOCK.format(_TIMES, 'l')}, "
    f"a AS ({_ADMIT} t.now, {_OUT.replace(' day,', ' a.day,')}), "
    f"c AS (INSERT INTO grants_call ({_CALL_COLUMNS}) "
    f"SELECT {_CALL_VALUES.format('now, last_reserved, day, tokens_clock + tokens_refunded')} FROM a) "
    "SELECT * FROM a"
)
LITE_ADMIT = f"{_ADMIT} %(now)s, {_OUT}"
LITE_INSERT = (
    f"INSERT INTO grants_call ({_CALL_COLUMNS}) "
    f"VALUES ({_CALL_VALUES.format('%(now)s, %(reserved)s, %(day)s, %(tokens_until)s')})"
)

# A settlement that comes after the reaper's replaces its charge by the difference.
_OPEN = "(finished_at IS NULL OR (reaped_at IS NOT NULL AND NOT %(reaping)s))"
# Where nobody knows what a call cost, the whole bound that was reserved for it.
_COST = "COALESCE(CAST(%(cost)s AS bigint), NULLIF({0}.reserved, 0))"
_ESTIMATED = "(%(estimated)s OR (CAST(%(cost)s AS bigint) IS NULL AND {0}.reserved > 0))"
_CHARGE = f"(COALESCE({_COST.format('old')}, 0) - COALESCE(old.cost, 0))"
_RETURNED = "CASE WHEN old.reaped_at IS NULL{0} THEN old.reserved ELSE 0 END"
_COUNTED = "CASE WHEN %(connected)s{0} THEN 0 ELSE old.counted END"
_SAME_MONTH = "a.day / 100 = old.day / 100"
# Unused tokens go back, but at most what is left of the call's own advance: else more would pass than the rate allows.
# What was taken off the clock since moved its advance nearer.
_SHARE = "old.tokens_advance * (old.tokens_reserved - %(used)s) / old.tokens_reserved"
_OVER = "(old.tokens_advance * (%(used)s - old.tokens_reserved) + old.tokens_reserved - 1) / old.tokens_reserved"
_LEFT = f"{_GREATEST}(0, {_LEAST}({_SHARE}, old.tokens_until - a.tokens_refunded - {_ROW_NOW}))"
_KNOWN = "old.tokens_reserved > 0 AND old.reaped_at IS NULL AND %(used)s >= 0"
_REFUND = f"CASE WHEN {_KNOWN} AND %(used)s < old.tokens_reserved THEN {_LEFT} ELSE 0 END"
_EXCESS = f"""CASE WHEN {_KNOWN} AND %(used)s > old.tokens_reserved
        THEN {_GREATEST}(0, {_ROW_NOW} - a.tokens_clock) + {_OVER} ELSE 0 END"""

_SETTLE_CALL = f"""
UPDATE grants_call AS c SET
    finished_at = {_ROW_NOW}, reaped_at = CASE WHEN %(reaping)s THEN {_ROW_NOW} ELSE NULL END,
    outcome = %(outcome)s, status = %(status)s, first_byte_us = %(first_byte_us)s, output_limit = %(output_limit)s,
    input_tokens = %(input_tokens)s, output_tokens = %(output_tokens)s, cached_tokens = %(cached_tokens)s,
    cost = {_COST.format("c")}, estimated = {_ESTIMATED.format("c")},
    counted = CASE WHEN %(connected)s THEN c.counted ELSE 0 END"""
_SETTLE_ALLOWANCE = f"""
UPDATE grants_allowance AS a SET
    in_flight = a.in_flight - CASE WHEN old.reaped_at IS NULL THEN 1 ELSE 0 END,
    reserved = a.reserved - {_RETURNED.format("")},
    day_reserved = a.day_reserved - {_RETURNED.format(" AND a.day = old.day")},
    month_reserved = a.month_reserved - {_RETURNED.format(f" AND {_SAME_MONTH}")},
    spent = a.spent + {_CHARGE},
    day_spent = a.day_spent + CASE WHEN a.day = old.day THEN {_CHARGE} ELSE 0 END,
    month_spent = a.month_spent + CASE WHEN {_SAME_MONTH} THEN {_CHARGE} ELSE 0 END,
    requests = a.requests - {_COUNTED.format("")},
    day_requests = a.day_requests - {_COUNTED.format(" OR a.day <> old.day")},
    (tokens_clock, tokens_refunded) = (
        SELECT a.tokens_clock - refund + {_EXCESS}, a.tokens_refunded + refund FROM (SELECT {_REFUND} AS refund) AS r),
    tokens_excess = a.tokens_excess + CASE WHEN {_KNOWN} AND %(used)s > old.tokens_reserved THEN {_OVER} ELSE 0 END,
    closed_at = CASE WHEN old.reserved > 0 AND CAST(%(cost)s AS bigint) > old.reserved
        THEN COALESCE(a.closed_at, {_ROW_NOW}) ELSE a.closed_at END"""

_SUMS = "calls, requests, failed, estimated, input_tokens, output_tokens, cached_tokens, cost"
# The reaper's settlement is a failed and estimated one.
_WAS_LOST = "CASE WHEN old.reaped_at IS NULL THEN 0 ELSE {} END"
_TOTALS = f"""
INSERT INTO grants_dailytotal (grant_id, day, model, purged_calls, purged_requests, purged_cost, {_SUMS})
SELECT old.grant_id, old.day, old.model, 0, 0, 0,
    1 - {_WAS_LOST.format(1)},
    CASE WHEN %(connected)s THEN old.counted ELSE 0 END - {_WAS_LOST.format("old.counted")},
    CASE WHEN %(outcome)s = 'ok' THEN 0 ELSE 1 END - {_WAS_LOST.format(1)},
    CASE WHEN {_ESTIMATED.format("old")} THEN 1 ELSE 0 END - {_WAS_LOST.format(1)},
    COALESCE(CAST(%(input_tokens)s AS bigint), 0) - COALESCE(old.input_tokens, 0),
    COALESCE(CAST(%(output_tokens)s AS bigint), 0) - COALESCE(old.output_tokens, 0),
    COALESCE(CAST(%(cached_tokens)s AS bigint), 0) - COALESCE(old.cached_tokens, 0),
    {_CHARGE}
FROM {{}}
ON CONFLICT (grant_id, day, model) DO UPDATE SET
    {", ".join(f"{name} = grants_dailytotal.{name} + excluded.{name}" for name in _SUMS.split(", "))}"""

# PostgreSQL: one round trip; `old` locks the call, then its counted row, before anything is written. `id` is repeated
# because the planner cannot prune partitions from the join alone.
PG_SETTLE = (
    "WITH old AS MATERIALIZED (SELECT c.* FROM grants_call AS c, grants_allowance AS r "
    f"WHERE c.id = %(id)s AND {_OPEN} AND r.grant_id = c.grant_id FOR NO KEY UPDATE OF c, r), "
    f"{_AFTER_LOCK.format(_CLOCK.format('clock') + ' AS now', 'old')}, "
    f"c AS ({_SETTLE_CALL} FROM old, t WHERE c.id = %(id)s AND c.id = old.id RETURNING c.id), "
    f"a AS ({_SETTLE_ALLOWANCE} FROM old, c, t WHERE a.grant_id = old.grant_id RETURNING a.grant_id) "
    f"{_TOTALS.format('old, a')}"
)
# SQLite: the same in three, while the call is still as it was.
LITE_SETTLE = (
    _TOTALS.format(f"grants_call AS old WHERE old.id = %(id)s AND {_OPEN}"),
    f"{_SETTLE_ALLOWANCE} FROM grants_call AS old WHERE old.id = %(id)s AND {_OPEN} AND a.grant_id = old.grant_id",
    f"{_SETTLE_CALL} WHERE c.id = %(id)s",
)

BEAT = (
    f"INSERT INTO grants_worker (id, seen_at) VALUES (%(id)s, {NOW}) ON CONFLICT (id) DO UPDATE SET seen_at = "
    f"{_CLOCK.format('clock_timestamp()') if POSTGRESQL else NOW}"  # PostgreSQL: evaluated under the row's lock
)
LOST = (
    "SELECT c.id FROM grants_call c WHERE c.finished_at IS NULL AND NOT EXISTS ("
    f"SELECT 1 FROM grants_worker w WHERE w.id = c.worker AND w.seen_at > {NOW} - %(silence)s)"
)
LONG_OPEN = (
    f"SELECT id FROM grants_call WHERE worker = %(worker)s AND finished_at IS NULL AND started_at < {NOW} - %(age)s"
)
TAKEN_AWAY = f"""
SELECT c.id FROM grants_call c
JOIN grants_grant g ON g.id = c.grant_id
JOIN grants_allowance a ON a.grant_id = c.grant_id
JOIN grants_providerkey k ON k.id = g.provider_key_id
JOIN auth_user u ON u.id = k.owner_id
LEFT JOIN grants_revokedtoken r ON r.jti = c.jti
LEFT JOIN grants_signingkey s ON s.kid = c.kid
WHERE c.worker = %(worker)s AND c.finished_at IS NULL AND (
    g.revoked_at IS NOT NULL OR a.expires_at <= {NOW} OR k.disabled_at IS NOT NULL OR NOT u.is_active
    OR r.jti IS NOT NULL OR s.kid IS NULL OR s.retired_at IS NOT NULL)
"""
OUTSTANDING = "SELECT count(*), COALESCE(sum(reserved), 0) FROM grants_call WHERE finished_at IS NULL"
REVISION_AND_STANDING = (
    f"SELECT revision, expires_at, closed_at, {NOW}, {STANDING} FROM grants_allowance WHERE grant_id = %(grant)s"
)
LEDGER_IS_AHEAD = f"SELECT 1 FROM grants_allowance AS a WHERE a.grant_id = %(grant)s AND ({_LEDGER_IS_AHEAD})"
CLOCK = f"SELECT {NOW}"
