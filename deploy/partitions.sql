-- The ledger's calls in one table a month (PostgreSQL 14 or newer). How to use it, and what changes then: docs/scaling.md.
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f deploy/partitions.sql       makes the functions below, and nothing else
--   CALL calls_partition();                                                once, beside running servers
--   SELECT calls_add_months(3);                                            nightly
--   SELECT calls_drop('grants_call_2025_10');                               in place of purge --calls-older-than
--
-- An id of a call begins with its time in milliseconds (UUIDv7), so a month is a range of ids, and every statement of the
-- product stays as it is. Months are UTC's.

-- The lowest id that a call of this moment or later can have.
CREATE OR REPLACE FUNCTION calls_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM moment) * 1000 AS bigint)), 12, '0') || repeat('0', 20) AS uuid)
$$;

-- The first moment of the month, so many months later.
CREATE OR REPLACE FUNCTION calls_month(moment timestamptz, later integer) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT (date_trunc('month', moment AT TIME ZONE 'UTC') + make_interval(months => later)) AT TIME ZONE 'UTC'
$$;

-- Make grants_call partitioned. The table that is there becomes the first partition, up to the end of this month: no row
-- is copied. Its ids are checked first, while calls go on; then it is locked for some milliseconds.
CREATE OR REPLACE PROCEDURE calls_partition() LANGUAGE plpgsql AS $$
DECLARE
    border uuid := calls_id_at(calls_month(clock_timestamp(), 1));
    each record;
BEGIN
    ALTER TABLE grants_call DROP CONSTRAINT IF EXISTS calls_first;
    EXECUTE format('ALTER TABLE grants_call ADD CONSTRAINT calls_first CHECK (id < %L) NOT VALID', border);
    COMMIT;
    ALTER TABLE grants_call VALIDATE CONSTRAINT calls_first;
    COMMIT;
    SET LOCAL lock_timeout = '3s';
    LOCK TABLE grants_grant IN SHARE ROW EXCLUSIVE MODE;
    LOCK TABLE grants_call IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE grants_call RENAME TO grants_call_first;
    CREATE TABLE grants_call (LIKE grants_call_first INCLUDING DEFAULTS INCLUDING GENERATED) PARTITION BY RANGE (id);
    FOR each IN
        SELECT conname AS name, contype AS kind, pg_get_constraintdef(oid) AS definition FROM pg_constraint
        WHERE conrelid = 'grants_call_first'::regclass AND conname <> 'calls_first' ORDER BY contype = 'p' DESC
    LOOP
        IF each.kind = 'p' THEN
            EXECUTE format('ALTER TABLE grants_call_first RENAME CONSTRAINT %I TO %I', each.name, 'grants_call_first_pkey');
        END IF;
        EXECUTE format('ALTER TABLE grants_call ADD CONSTRAINT %I %s', each.name, each.definition);
    END LOOP;
    FOR each IN  -- the names that migrations know belong to the whole
        SELECT relname AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index JOIN pg_class ON oid = indexrelid
        WHERE indrelid = 'grants_call_first'::regclass AND NOT indisprimary
    LOOP
        EXECUTE format('ALTER INDEX %I RENAME TO %I', each.name, 'grants_call_first_' || each.name);
        EXECUTE regexp_replace(each.definition, ' ON (ONLY )?(\w+\.)?grants_call_first ', ' ON grants_call ');
    END LOOP;
    EXECUTE format('ALTER TABLE grants_call ATTACH PARTITION grants_call_first FOR VALUES FROM (MINVALUE) TO (%L)', border);
    ALTER TABLE grants_call_first DROP CONSTRAINT calls_first;
    CREATE TABLE grants_call_default PARTITION OF grants_call DEFAULT;
    PERFORM calls_add_months(3);
END $$;

-- Partitions for the months to come. Returns how many it made. A call that finds none goes into grants_call_default, and
-- then its month cannot be made any more: so run it in time.
CREATE OR REPLACE FUNCTION calls_add_months(ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    month timestamptz;
    name text;
    made integer := 0;
BEGIN
    SET LOCAL lock_timeout = '3s';
    FOR later IN 1..ahead LOOP
        month := calls_month(clock_timestamp(), later);
        name := 'grants_call_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF grants_call FOR VALUES FROM (%L) TO (%L)',
                name, calls_id_at(month), calls_id_at(calls_month(month, 1)));
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;

-- Drop one partition of old calls, 'grants_call_2025_10' or 'grants_call_first'; what they cost stays in the daily totals,
-- as with purge. All or nothing; reconcile holds before and after. Returns how many calls are gone.
CREATE OR REPLACE FUNCTION calls_drop(partition regclass) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    border text;
    gone bigint;
    sums bigint;
    kept bigint;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_inherits WHERE inhrelid = partition AND inhparent = 'grants_call'::regclass) THEN
        RAISE '% is no partition of the calls', partition;
    END IF;
    SELECT pg_get_expr(relpartbound, oid) INTO border FROM pg_class WHERE oid = partition;
    IF COALESCE(CAST(substring(border FROM 'TO \(''(.*)''\)') AS uuid) > calls_id_at(clock_timestamp()), true) THEN
        RAISE 'the month of % is not over', partition;
    END IF;
    EXECUTE format('SELECT count(*) FROM %s WHERE id >= %L OR finished_at IS NULL',
        partition, calls_id_at(clock_timestamp() - interval '7 days')) INTO gone;
    IF gone > 0 THEN
        RAISE '% holds % calls that are open or not a week old', partition, gone;
    END IF;
    EXECUTE format('WITH gone AS (SELECT grant_id, day, model, count(*) AS calls, sum(counted) AS requests,
            COALESCE(sum(cost), 0) AS cost FROM %s GROUP BY grant_id, day, model),
        kept AS (UPDATE grants_dailytotal AS t SET purged_calls = t.purged_calls + gone.calls,
            purged_requests = t.purged_requests + gone.requests, purged_cost = t.purged_cost + gone.cost
            FROM gone WHERE t.grant_id = gone.grant_id AND t.day = gone.day AND t.model = gone.model RETURNING 1)
        SELECT COALESCE(sum(calls), 0), count(*), (SELECT count(*) FROM kept) FROM gone', partition) INTO gone, sums, kept;
    IF kept <> sums THEN
        RAISE '% calls are in no daily total: run manage.py reconcile --repair first', sums - kept;
    END IF;
    SET LOCAL lock_timeout = '3s';
    EXECUTE format('DROP TABLE %s', partition);
    RETURN gone;
END $$;
