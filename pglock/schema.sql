-- What pglock keeps in a database. Migrate applies this file; it may be applied by hand, and again.
-- Every object is made in the first schema of the search_path.
--
-- The tables are unlogged: they cost no WAL, and a crash of the server, or the promotion of a standby,
-- empties them. Then no session is left, and nothing is granted until a quarantine has passed, see
-- pglock_life. For locks that survive a crash, use WithDurable and make two of them logged:
--
--   ALTER TABLE pglock_session SET LOGGED;
--   ALTER TABLE pglock_key SET LOGGED;

-- A session is a process. Its entries count as gone when it has expired, or is not here.
CREATE UNLOGGED TABLE IF NOT EXISTS pglock_session (
  id      text        PRIMARY KEY,
  expires timestamptz NOT NULL
);

-- A key has one row, which is updated in place: there is room for that on its page. An entry is
-- SESSION:ATTEMPT. The row is also the latch of its key, since every change locks it first.
CREATE UNLOGGED TABLE IF NOT EXISTS pglock_key (
  key     bytea       PRIMARY KEY,
  entry   text,                               -- the entry that holds the key; NULL when it is free
  epoch   bigint      NOT NULL DEFAULT 0,     -- of the last grant
  queue   text[]      NOT NULL DEFAULT '{}',  -- the entries that wait, first come first
  refused text[]      NOT NULL DEFAULT '{}',  -- entries that must not be entered any more
  used    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 30);

-- One row, which a server does not have after a crash, or after it was promoted from a standby, because
-- the table is unlogged whatever the others are. The call that finds it missing writes it, with the moment
-- from which on keys may be granted: by then no process can believe in a grant that was forgotten.
CREATE UNLOGGED TABLE IF NOT EXISTS pglock_life (
  one   boolean     PRIMARY KEY DEFAULT true CHECK (one),
  quiet timestamptz NOT NULL
);

-- This is the first time: nothing can have been forgotten.
INSERT INTO pglock_life (quiet) SELECT clock_timestamp() WHERE NOT EXISTS (SELECT FROM pglock_session) ON CONFLICT DO NOTHING;

-- Returns from when on keys may be granted. Without the row, the server has been started after a crash,
-- or promoted: unless the locks are durable, every session ends.
CREATE OR REPLACE FUNCTION pglock_quiet(quarantine interval, durable boolean) RETURNS timestamptz
LANGUAGE plpgsql AS $$
DECLARE
  since timestamptz;
BEGIN
  SELECT quiet INTO since FROM pglock_life;
  IF FOUND THEN
    RETURN since;
  END IF;
  INSERT INTO pglock_life (quiet) VALUES (clock_timestamp() + quarantine) ON CONFLICT DO NOTHING;
  IF FOUND AND NOT durable THEN
    DELETE FROM pglock_session;
  END IF;
  SELECT quiet INTO since FROM pglock_life;
  RETURN coalesce(since, clock_timestamp() + quarantine);
END $$;

-- Whether an entry's session lives.
CREATE OR REPLACE FUNCTION pglock_alive(entry text) RETURNS boolean
LANGUAGE plpgsql AS $$ -- which keeps its plan, as a function in SQL would not
BEGIN
  RETURN EXISTS (SELECT FROM pglock_session WHERE id = split_part(entry, ':', 1) AND expires > clock_timestamp());
END $$;

-- The clock in microseconds, of which epochs are made: they grow also after the newest rows were lost.
CREATE OR REPLACE FUNCTION pglock_us() RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
  RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;

-- Settings of one transaction. A row is locked for long only by a guard, and a connection waits for that only so
-- long: the engine asks again.
CREATE OR REPLACE FUNCTION pglock_settings(durable boolean, lock_timeout_ms integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('lock_timeout', lock_timeout_ms::text, true);
  IF durable THEN
    -- remote_apply, or the names of standbys, are for the server's own settings to say.
    IF current_setting('synchronous_commit') = 'off' THEN
      PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
  ELSE
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;
END $$;

-- Starts a session, or prolongs it.
CREATE OR REPLACE FUNCTION pglock_begin(session text, ttl interval, quarantine interval, durable boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pglock_settings(durable, 1000);
  PERFORM pglock_quiet(quarantine, durable);
  INSERT INTO pglock_session VALUES (session, clock_timestamp() + ttl)
    ON CONFLICT (id) DO UPDATE SET expires = excluded.expires;
END $$;

-- Prolongs a session that lives; returns whether it does, and the positions, from 1, of the keys that its
-- entries do not hold with these epochs any more.
CREATE OR REPLACE FUNCTION pglock_renew(session text, ttl interval, keys bytea[], attempts bigint[], epochs bigint[], durable boolean,
  OUT alive boolean, OUT missing integer[])
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pglock_settings(durable, 1000);
  UPDATE pglock_session SET expires = clock_timestamp() + ttl WHERE id = session AND expires > clock_timestamp();
  alive := FOUND;
  IF alive AND cardinality(keys) > 0 THEN
    SELECT array_agg(h.i) INTO missing
    FROM unnest(keys, attempts, epochs) WITH ORDINALITY AS h (key, attempt, epoch, i)
    WHERE NOT EXISTS (
      SELECT FROM pglock_key k WHERE k.key = h.key AND k.entry = session || ':' || h.attempt AND k.epoch = h.epoch);
  END IF;
  missing := coalesce(missing, '{}');
END $$;

-- Grants the key of a locked row to the first living entry, if no living entry holds it and the time has come. Its
-- process gets a notice, unless it is the one that asks.
CREATE OR REPLACE FUNCTION pglock_settle(k pglock_key, asks text, quiet timestamptz) RETURNS pglock_key
LANGUAGE plpgsql AS $$
BEGIN
  IF k.entry IS NOT NULL AND NOT pglock_alive(k.entry) THEN
    k.entry := NULL;
  END IF;
  WHILE k.entry IS NULL AND cardinality(k.queue) > 0 AND quiet <= clock_timestamp() LOOP
    IF pglock_alive(k.queue[1]) THEN
      k.entry := k.queue[1];
      k.epoch := greatest(k.epoch + 1, pglock_us());
      IF k.entry <> asks THEN
        PERFORM pg_notify('pglock_' || split_part(k.entry, ':', 1), 'granted ' || k.epoch || ' ' || split_part(k.entry, ':', 2));
        IF cardinality(k.queue) > 1 THEN
          PERFORM pg_notify('pglock_' || split_part(k.entry, ':', 1), 'wanted 0 ' || split_part(k.entry, ':', 2));
        END IF;
      END IF;
    END IF;
    k.queue := k.queue[2:];
  END LOOP;
  k.used := clock_timestamp();
  UPDATE pglock_key SET entry = k.entry, epoch = k.epoch, queue = k.queue, refused = k.refused, used = k.used WHERE key = k.key;
  RETURN k;
END $$;

-- Enters an entry into the queue of a key, and returns what became of it:
--
--   granted  it holds the key, with this epoch; wanted says whether others wait
--   waits    it is in the queue; again is after how long it should ask again
--   held     other entries are there, and it was not to wait
--   left     it was refused before it came
--   gone     its session is unknown, or has expired
CREATE OR REPLACE FUNCTION pglock_enter(key_ bytea, session text, attempt bigint, try boolean, quarantine interval, durable boolean,
  OUT outcome text, OUT granted bigint, OUT wanted boolean, OUT again interval)
LANGUAGE plpgsql AS $$
DECLARE
  name  text := session || ':' || attempt;
  quiet timestamptz;
  ends  timestamptz;
  k     pglock_key;
BEGIN
  PERFORM pglock_settings(durable, 100);
  wanted := false;
  quiet := pglock_quiet(quarantine, durable);
  IF NOT pglock_alive(name) THEN
    outcome := 'gone';
    RETURN;
  END IF;
  IF quiet <= clock_timestamp() THEN
    INSERT INTO pglock_key AS old (key, entry, epoch) VALUES (key_, name, pglock_us())
      ON CONFLICT (key) DO UPDATE
      SET entry = excluded.entry, epoch = greatest(old.epoch + 1, excluded.epoch), used = clock_timestamp()
      WHERE old.entry IS NULL AND old.queue = '{}' AND old.refused = '{}'
      RETURNING old.epoch INTO granted;
    IF FOUND THEN
      outcome := 'granted';
      RETURN;
    END IF;
  ELSE
    INSERT INTO pglock_key (key) VALUES (key_) ON CONFLICT DO NOTHING;
  END IF;

  SELECT * INTO k FROM pglock_key WHERE key = key_ FOR UPDATE;
  IF NOT FOUND THEN -- swept in between
    INSERT INTO pglock_key (key) VALUES (key_) ON CONFLICT DO NOTHING;
    SELECT * INTO k FROM pglock_key WHERE key = key_ FOR UPDATE;
  END IF;
  IF name = ANY (k.refused) THEN
    outcome := 'left';
    RETURN;
  END IF;
  IF cardinality(k.refused) > 0 THEN
    k.refused := ARRAY (SELECT r FROM unnest(k.refused) AS r WHERE pglock_alive(r));
  END IF;
  IF try THEN -- only the living are in its way
    k.queue := ARRAY (SELECT q FROM unnest(k.queue) WITH ORDINALITY AS u (q, i) WHERE pglock_alive(q) ORDER BY i);
  END IF;
  k := pglock_settle(k, name, quiet);
  IF k.entry IS DISTINCT FROM name AND NOT name = ANY (k.queue) THEN
    IF try AND (k.entry IS NOT NULL OR cardinality(k.queue) > 0 OR quiet > clock_timestamp()) THEN
      outcome := 'held';
      IF k.entry IS NOT NULL THEN
        PERFORM pg_notify('pglock_' || split_part(k.entry, ':', 1), 'wanted 0 ' || split_part(k.entry, ':', 2));
      END IF;
      RETURN;
    END IF;
    k.queue := k.queue || name;
    k := pglock_settle(k, name, quiet);
  END IF;
  IF k.entry = name THEN
    outcome := 'granted';
    granted := k.epoch;
    wanted := cardinality(k.queue) > 0;
    RETURN;
  END IF;
  outcome := 'waits';
  IF k.entry IS NULL THEN -- in quarantine
    again := quiet - clock_timestamp() + interval '1 millisecond';
    RETURN;
  END IF;
  PERFORM pg_notify('pglock_' || split_part(k.entry, ':', 1), 'wanted 0 ' || split_part(k.entry, ':', 2));
  SELECT expires INTO ends FROM pglock_session WHERE id = split_part(k.entry, ':', 1);
  again := coalesce(ends, clock_timestamp()) - clock_timestamp() + interval '1 millisecond';
END $$;

-- Removes an entry, and grants the key to the next one. It returns whether the session lives, and whether the entry was there. Where late
-- is true, the statement that enters it may come after this one, and is refused then.
CREATE OR REPLACE FUNCTION pglock_leave(key_ bytea, session text, attempt bigint, late boolean, quarantine interval, durable boolean,
  OUT alive boolean, OUT present boolean)
LANGUAGE plpgsql AS $$
DECLARE
  name text := session || ':' || attempt;
  k    pglock_key;
BEGIN
  PERFORM pglock_settings(durable, 100);
  present := true;
  alive := true;
  IF NOT late THEN
    UPDATE pglock_key SET entry = NULL, used = clock_timestamp() WHERE key = key_ AND entry = name AND queue = '{}';
    IF FOUND THEN
      RETURN;
    END IF;
  END IF;
  alive := pglock_alive(name);
  IF late AND alive THEN
    INSERT INTO pglock_key (key) VALUES (key_) ON CONFLICT DO NOTHING;
  END IF;
  SELECT * INTO k FROM pglock_key WHERE key = key_ FOR UPDATE;
  IF NOT FOUND THEN
    present := false;
    RETURN;
  END IF;
  present := k.entry IS NOT DISTINCT FROM name OR name = ANY (k.queue);
  IF k.entry = name THEN
    k.entry := NULL;
  END IF;
  k.queue := array_remove(k.queue, name);
  IF late AND alive AND NOT name = ANY (k.refused) THEN
    k.refused := k.refused || name;
  END IF;
  PERFORM pglock_settle(k, '', pglock_quiet(quarantine, durable));
END $$;

-- Ends a session, and removes its entries, at most so many at a time. It returns whether there are more.
CREATE OR REPLACE FUNCTION pglock_end(session text, quarantine interval, durable boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  k     pglock_key;
  n     integer := 0;
  quiet timestamptz;
BEGIN
  PERFORM pglock_settings(durable, 1000);
  quiet := pglock_quiet(quarantine, durable);
  DELETE FROM pglock_session WHERE id = session;
  FOR k IN
    SELECT * FROM pglock_key
    WHERE entry LIKE session || ':%' OR EXISTS (SELECT FROM unnest(queue) AS q WHERE q LIKE session || ':%')
    ORDER BY key LIMIT 1000 FOR UPDATE
  LOOP
    n := n + 1;
    k.queue := ARRAY (SELECT q FROM unnest(k.queue) WITH ORDINALITY AS u (q, i) WHERE q NOT LIKE session || ':%' ORDER BY i);
    PERFORM pglock_settle(k, '', quiet);
  END LOOP;
  RETURN n = 1000;
END $$;

-- Removes what was not used for an hour: free keys, and sessions that have expired. It returns how many keys.
CREATE OR REPLACE FUNCTION pglock_sweep() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  n integer;
BEGIN
  PERFORM pglock_settings(false, 1000);
  DELETE FROM pglock_session WHERE expires < clock_timestamp() - interval '1 hour';
  DELETE FROM pglock_key WHERE key IN (
    SELECT key FROM pglock_key
    WHERE used < clock_timestamp() - interval '1 hour'
      AND (entry IS NULL OR NOT pglock_alive(entry))
      AND NOT EXISTS (SELECT FROM unnest(queue || refused) AS q WHERE pglock_alive(q))
    LIMIT 1000 FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;
