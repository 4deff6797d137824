// Package pglock keeps the locks of package cohort in PostgreSQL.
//
//	config, err := pgx.ParseConfig(os.Getenv("DATABASE_URL"))
//	…
//	engine, err := pglock.New(config)
//	…
//	locks := cohort.Start(ctx, engine)
//
// [Migrate] makes the tables and functions that it needs; [Schema] is what it executes, for those who
// apply migrations by hand.
//
// # How it works
//
// A process is a session: a row that it renews four times per TTL, whatever it holds or waits for. A key is
// a row too, with the entry that holds it and the entries that wait. Every change of a key locks its row,
// and an entry that leaves grants the key to the next living one in the same statement, whose process
// alone hears of it by NOTIFY. So waiting costs no connection: a process uses at most six, one of them to
// LISTEN, and one that locks do not use, for renewals.
//
// Session-level advisory locks are not used. They have no lease, so that a paused client keeps them for
// hours; each waiter occupies a connection; the keys are hashes, which collide; and a pooler in transaction
// mode strands them.
//
// # What is promised
//
// What package cohort promises: fencing tokens that grow with every grant of a key. And for data in the
// same database more: a transaction that has called [Grant.Guard] excludes every other holder of the key
// until it has ended, however long the process was paused.
//
// By default the locks are in unlogged tables, which a crash of the server, or a failover to a standby,
// empties. The tokens grow all the same, because they are made of the server's clock, and nothing is
// granted for a TTL afterwards, by which time no process that is not paused still believes in an old grant
// ([WithQuarantine], [WithDurable]).
//
// # Poolers
//
// The statements work through a pooler in transaction mode, LISTEN does not. The engine finds out, and
// then asks four times per TTL instead; [WithListener] gives it a direct connection to listen on.
package pglock
