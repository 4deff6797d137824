-- What pglock keeps in a database. Migrate applies this file; it may be applied by hand, and again.
-- Every object is made in the first schema of the search_path.
--
-- The tables are unlogged: they cost no WAL, and a crash of the server, or the promotion of a standby,
-- empties them. Then no session is left, and nothing is granted until a quarantine has passed, see
-- pglock_life. For locks that survive a crash, use WithDurable and make two of them logged:
--
--   ALTER TABLE pglock_session SET LOGGED;
--   ALTER TABLE pglock_key SET LOGGED;

-- A session is a process, which the last three columns describe for people. Its entries count as gone when it has
-- expired, or is not here.
CREATE UNLOGGED TABLE IF NOT EXISTS pglock_session (
  id      text        PRIMARY KEY,
  expires timestamptz NOT NULL,
  label   text        NOT NULL DEFAULT '',
  host    text        NOT NULL DEFAULT '',
  pid     integer     NOT NULL DEFAULT 0
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
-- from which on keys may be granted: by then no process can believe in a grant that was forgotten. Only
-- the table itself comes with its row: when this file is applied again, the server may just have crashed.
DO $$
BEGIN
  IF to_regclass(format('%I.pglock_life', current_schema())) IS NULL THEN
    CREATE UNLOGGED TABLE pglock_life (
      one   boolean     PRIMARY KEY DEFAULT true CHECK (one),
      quiet timestamptz NOT NULL
    );
    INSERT INTO pglock_life (quiet) VALUES (clock_timestamp());
  END IF;
END $$;

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

-- Whether an entry's session has ended; then it has ended for good. A renewal that has looked at the clock in time may be
-- committed only now, and its process believes it: such a session lives, and any other is removed, so that a renewal finds none.
CREATE OR REPLACE FUNCTION pglock_dead(entry text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  session text := split_part(entry, ':', 1);
BEGIN
  IF pglock_alive(entry) THEN -- as a rule
    RETURN false;
  END IF;
  DELETE FROM pglock_session WHERE id IN (
    SELECT id FROM pglock_session WHERE id = session AND expires <= clock_timestamp() FOR UPDATE SKIP LOCKED);
  RETURN NOT EXISTS (SELECT FROM pglock_session WHERE id = session);
END $$;

-- The clock in microseconds, of which epochs are made: they grow also after the newest rows were lost.
CREATE OR REPLACE FUNCTION pglock_us() RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
  RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
END $$;

-- Settings of one transaction, for a connection through a pooler, which keeps none. A row is locked for long only by a
-- guard, and a connection waits for that only so long: the engine asks again.
CREATE OR REPLACE FUNCTION pglock_settings(durable boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('lock_timeout', '100', true);
  -- remote_apply, or the names of standbys, are for the server's own settings to say.
  IF NOT durable THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  ELSIF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
END $$;

-- Starts a session, or prolongs it.
CREATE OR REPLACE FUNCTION pglock_begin(session text, ttl interval, quarantine interval, durable boolean,
  label text, host text, pid integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pglock_quiet(quarantine, durable);
  INSERT INTO pglock_session VALUES (session, clock_timestamp() + ttl, label, host, pid)
    ON CONFLICT (id) DO UPDATE SET expires = excluded.expires;
END $$;

-- Prolongs a session that lives; returns whether it does, and the positions, from 1, of the keys that its
-- entries do not hold with these epochs any more.
CREATE OR REPLACE FUNCTION pglock_renew(session text, ttl interval, keys bytea[], attempts bigint[], epochs bigint[], durable boolean,
  OUT alive boolean, OUT missing integer[])
LANGUAGE plpgsql AS $$
BEGIN
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

-- Grants the key of a locked row to the first entry that is not dead, if none holds it and the time has come, and
-- writes the row. The process of the new holder gets a notice, unless it is the one that asks.
CREATE OR REPLACE FUNCTION pglock_settle(k pglock_key, asks text, quiet timestamptz) RETURNS pglock_key
LANGUAGE plpgsql AS $$
DECLARE
  next text;
BEGIN
  IF k.entry IS NOT NULL AND pglock_dead(k.entry) THEN
    k.entry := NULL;
  END IF;
  WHILE k.entry IS NULL AND cardinality(k.queue) > 0 AND quiet <= clock_timestamp() LOOP
    next := k.queue[1];
    k.queue := k.queue[2:];
    IF NOT pglock_dead(next) THEN
      k.entry := next;
      k.epoch := greatest(k.epoch + 1, pglock_us());
      IF next <> asks THEN
        PERFORM pg_notify('pglock_' || split_part(next, ':', 1),
          CASE WHEN k.queue <> '{}' THEN 'granted,wanted ' ELSE 'granted ' END || k.epoch || ' ' || split_part(next, ':', 2));
      END IF;
    END IF;
  END LOOP;
  UPDATE pglock_key SET entry = k.entry, epoch = k.epoch, queue = k.queue, refused = k.refused, used = clock_timestamp()
    WHERE key = k.key;
  RETURN k;
END $$;

-- Enters an entry into the queue of a key, and returns what became of it:
--
--   granted  it holds the key, with this epoch; wanted says whether others wait
--   waits    it is in the queue; again is after how long it should ask again
--   held     other entries are there, and it was not to wait; granted is then the epoch of the holder, if there is
--            one, and holder its session, with what that says of its process
--   left     it was refused before it came
--   gone     its session is unknown, or has expired
--
-- The first entry that waits asks again after a millisecond, and only then is the holder's process told: most holders
-- have left by then, and a notice wakes every process that listens.
CREATE OR REPLACE FUNCTION pglock_enter(key_ bytea, session text, attempt bigint, try boolean, quarantine interval, durable boolean,
  OUT outcome text, OUT granted bigint, OUT wanted boolean, OUT again interval, OUT holder text, OUT label text, OUT host text, OUT pid integer)
LANGUAGE plpgsql AS $$
DECLARE
  name   text := session || ':' || attempt;
  quiet  timestamptz := pglock_quiet(quarantine, durable);
  ends   timestamptz; -- of the session that holds the key
  queued boolean;
  k      pglock_key;
BEGIN
  wanted := false;
  IF NOT pglock_alive(name) THEN
    outcome := 'gone';
    RETURN;
  END IF;
  SELECT * INTO k FROM pglock_key WHERE key = key_ FOR UPDATE;
  WHILE NOT FOUND LOOP -- or it is swept in between
    INSERT INTO pglock_key (key) VALUES (key_) ON CONFLICT DO NOTHING;
    SELECT * INTO k FROM pglock_key WHERE key = key_ FOR UPDATE;
  END LOOP;
  IF k.refused <> '{}' THEN
    IF name = ANY (k.refused) THEN
      outcome := 'left';
      RETURN;
    END IF;
    k.refused := ARRAY (SELECT r FROM unnest(k.refused) AS r WHERE NOT pglock_dead(r));
  END IF;
  queued := name = ANY (k.queue);
  IF k.entry IS NOT NULL THEN
    SELECT expires INTO ends FROM pglock_session WHERE id = split_part(k.entry, ':', 1) AND expires > clock_timestamp();
    IF ends IS NULL AND NOT pglock_dead(k.entry) THEN
      ends := clock_timestamp(); -- its renewal is under way
    END IF;
  END IF;

  IF ends IS NULL THEN -- no living entry holds it
    IF try THEN -- only the living are in its way
      k.queue := ARRAY (SELECT q FROM unnest(k.queue) WITH ORDINALITY AS u (q, i) WHERE NOT pglock_dead(q) ORDER BY i);
    END IF;
    IF NOT try OR k.queue = '{}' AND quiet <= clock_timestamp() THEN
      IF NOT queued THEN
        k.queue := k.queue || name;
      END IF;
      queued := true;
    END IF;
    k := pglock_settle(k, name, quiet);
  ELSIF k.entry <> name AND NOT queued AND NOT try THEN
    IF k.queue = '{}' THEN
      again := '1 millisecond';
    END IF;
    k.queue := k.queue || name;
    queued := true;
    UPDATE pglock_key SET queue = k.queue, refused = k.refused, used = clock_timestamp() WHERE key = key_;
  ELSIF k.entry <> name THEN
    PERFORM pg_notify('pglock_' || split_part(k.entry, ':', 1), 'wanted 0 ' || split_part(k.entry, ':', 2));
  END IF;

  IF k.entry = name THEN
    outcome := 'granted';
    granted := k.epoch;
    wanted := k.queue <> '{}';
  ELSIF NOT queued THEN
    outcome := 'held';
    SELECT k.epoch, s.id, s.label, s.host, s.pid INTO granted, holder, label, host, pid
    FROM pglock_session s WHERE s.id = split_part(k.entry, ':', 1);
  ELSE
    outcome := 'waits';
    IF k.entry IS NULL THEN -- in quarantine
      again := quiet - clock_timestamp() + interval '1 millisecond';
    ELSIF again IS NULL THEN
      again := coalesce(ends, clock_timestamp()) - clock_timestamp() + interval '1 millisecond';
    END IF;
  END IF;
END $$;

-- Removes an entry, and grants the key to the next one. It returns whether the session lives, as far as it has looked, whether
-- the entry was there, and whether no other was. Where late is true, the statement that enters it may come after this
-- one, and is refused then.
CREATE OR REPLACE FUNCTION pglock_leave(key_ bytea, session text, attempt bigint, late boolean, quarantine interval, durable boolean,
  OUT alive boolean, OUT present boolean, OUT alone boolean)
LANGUAGE plpgsql AS $$
DECLARE
  name text := session || ':' || attempt;
  k    pglock_key;
BEGIN
  present := false;
  alone := true;
  alive := NOT late OR pglock_alive(name);
  IF late AND alive THEN
    INSERT INTO pglock_key (key) VALUES (key_) ON CONFLICT DO NOTHING;
  END IF;
  SELECT * INTO k FROM pglock_key WHERE key = key_ FOR UPDATE;
  IF k.entry = name THEN
    present := true;
    k.entry := NULL;
  ELSIF name = ANY (k.queue) THEN
    present := true;
    k.queue := array_remove(k.queue, name);
  ELSE
    alive := pglock_alive(name);
  END IF;
  IF k.key IS NULL THEN
    RETURN;
  END IF;
  IF late AND alive AND NOT name = ANY (k.refused) THEN
    k.refused := k.refused || name;
  END IF;
  alone := k.entry IS NULL AND k.queue = '{}';
  PERFORM pglock_settle(k, '', pglock_quiet(quarantine, durable));
END $$;

-- Takes a key from the entry that holds it with the epoch, and grants it to the next. It returns whether there was one.
-- After a crash it grants nothing: when that begins again, and what is left, is for the processes that lock to set.
CREATE OR REPLACE FUNCTION pglock_break(key_ bytea, epoch_ bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  k pglock_key;
BEGIN
  SELECT * INTO k FROM pglock_key WHERE key = key_ AND epoch = epoch_ AND entry IS NOT NULL FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  k.entry := NULL;
  PERFORM pglock_settle(k, '', coalesce((SELECT quiet FROM pglock_life), 'infinity'));
  RETURN true;
END $$;

-- Ends a session, and removes its entries, at most so many at a time. It returns whether there are more.
CREATE OR REPLACE FUNCTION pglock_end(session text, quarantine interval, durable boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  k     pglock_key;
  n     integer := 0;
  quiet timestamptz;
BEGIN
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

-- Removes what was not used for an hour: free keys, at most 1,000, and sessions that have expired. It returns how many keys. A key whose
-- last epoch is ahead of the clock, which was set back, stays: without its row the next epoch would be smaller.
CREATE OR REPLACE FUNCTION pglock_sweep() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  n integer;
BEGIN
  DELETE FROM pglock_session WHERE expires < clock_timestamp() - interval '1 hour';
  DELETE FROM pglock_key WHERE key IN (
    SELECT key FROM pglock_key
    WHERE used < clock_timestamp() - interval '1 hour' AND epoch < pglock_us()
      AND (entry IS NULL OR pglock_dead(entry))
      AND NOT EXISTS (SELECT FROM unnest(queue || refused) AS q WHERE NOT pglock_dead(q))
    LIMIT 1000 FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;
