// Package cohort puts a process's lock manager in front of an engine that knows all
// processes: the calls of package keylock, for keys that several processes share.
//
//	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints})
//	engine, err := etcdlock.New(client)
//	locks := cohort.Start(ctx, engine)
//	defer locks.Close()
//
//	lock, err := locks.Acquire(ctx, "order/42")
//	if err != nil {
//		return err
//	}
//	err = save(lock.Context(), lock.Token(), order) // the store refuses a token that is smaller than one it has seen
//	return errors.Join(err, lock.Release())
//
// The contenders for a key within the process wait in a keylock.Manager, first come,
// first served. One of them at a time goes to the engine: the process then has a claim to the key. The
// claim is handed off from one to the next within the process, and given back when none waits, or
// when another process wants the key and [WithMaxHandoffs] or [WithMaxHold] say so. So a busy key costs the
// engine one lock for many holders, and one that no other process wants never goes back while callers wait for it. This is lock cohorting (Dice, Marathe and Shavit, "Lock Cohorting",
// PPoPP 2012), where a process stands for a processor node.
//
// # What is promised
//
// Fencing, not exclusion. A lock that outlives the crash of its holder must be able to be lost, and no lock
// that can be lost excludes a holder that does not know of its loss: a
// process may be paused for longer than its lease lasts, and then goes on to write
// (Kleppmann, "How to do distributed locking", 2016; Jepsen, "etcd 3.4.3", 2020).
// What keeps such a write out is the resource itself:
//
//  1. Token. Of two grants of a key by the engine, to whichever processes, the later has the greater
//     Epoch, and of two holders who share one, the later has the greater Seq. So [Lock.Token] is
//     greater than that of every holder before, as long as the engine gives a key to another
//     process only after the claim of this one was given back or its loss was noticed here. When an
//     engine's claim is taken away in another way (the process was paused past its lease, or a person deleted the claim),
//     the process can hand it off until it notices; tokens that it gives out
//     meanwhile are smaller than those of the process that has the key now. In any
//     case: a resource that remembers the greatest token it has seen, on reads
//     too, and refuses smaller ones, is never changed by a holder that is not the last.
//  2. Notice. When the engine can no longer vouch for the lock, the context of the holder
//     is cancelled with the cause [ErrLost], and Release returns ErrLost. That is before another process can
//     get the key if the lock is lost because the engine cannot be reached, and after that
//     if the process was paused, or if a person took the claim away: then the notice comes when the
//     process goes on, or within the bound that the engine documents.
//  3. Exclusion. Short of such pauses and interventions, and of clocks that run at different speeds, one
//     holder at a time has the key. Within the process it is certain.
//  4. Order. Within the process a key is granted in the order in which it was asked for.
//     Among processes the engine's order holds, with many local holders for each grant.
//  5. Cancellation. Every wait ends with its context, also while the engine cannot be
//     reached; the claim then passes to the next waiter of the process.
//  6. Loss. When the engine's lock is lost, it is handed off no more: those who wait
//     acquire anew. With an engine that has one session per process, as etcdlock,
//     losing it loses all keys.
//  7. Release depends on no context of the caller, and waits for the engine for at most
//     [WithEngineTimeout]; so do Close and Shutdown. A key that the engine has not confirmed by then is
//     given back in the background.
//     With [WithKeep] a Release that keeps the key asks no engine: then it returns ErrLost only
//     for a loss that has been noticed by then.
//
// # One engine, one manager
//
// An engine belongs to one manager, and a second [Start] on it panics: the first Close
// would end the session under the other. A process needs one manager; different parts of it can
// share it, with keys that tell them apart.
//
// # Keys that stay
//
// A process that is alone with its keys pays two requests to the engine for each lock. With [WithKeep] a key stays
// with the process after its release, and its next holder gets it without the engine: the same claim, with
// the next Seq. It goes back when another process wants it, when the engine loses it, or when it has been idle for
// a while. The engine says when another process wants a key; etcdlock, redislock and pglock do. While
// an engine cannot tell, because its watch or subscription is broken, every key counts as wanted, and
// is not kept.
//
// Use it where a process uses the same keys again and again and others seldom do: keys that belong to a shard, a session
// or a worker. Without such affinity it gains nothing. Where processes take turns, a key is kept
// less and less often, see [WithKeep], so that this costs little. It is the wrong choice where a
// crash must not stop others: when a process is killed, others wait for all that it kept until its lease has run
// out, also for keys that none of its callers was using. In good order nothing is left: Shutdown and Close
// give back all that is kept.
//
// TryAcquire of another process finds a kept key held, and has it recalled, so that a later try succeeds. WaitIdle
// does not count what is kept. Snapshot lists it, and Stats counts how often a key was found kept, and recalled.
//
// # Fairness
//
// Fairness is by process and not by waiter. A process that has one waiter gets a hot key as often as one
// that has fifty, and with each grant lets up to [WithMaxHandoffs] of its own waiters have it: with 48, 4 and 1 goroutines
// in three processes, the first two get about the same, and the third, which has no other waiter, one lock for each of
// their grants. Lower WithMaxHandoffs, or [WithMaxHold], where that matters more than throughput.
//
// # The same calls, and those that exist only locally
//
// Code that is written against Do, with the signature
//
//	Do(ctx context.Context, key string, fn func(context.Context) error) error
//
// runs with a keylock.Manager[string] and with a Manager. WaitIdle, Shutdown, Close and Done are called in the
// same way too. Acquire and TryAcquire return a Lock of this package, which has a token, and whose Release returns an
// error; TryAcquire takes a context, because it asks the engine. Stats, Snapshot, Top and Inspect
// return what keylock's do, and the claims.
//
// AcquireAll takes many keys one after the other, in the order of their bytes, because an engine has no locks of many
// keys: it is all or nothing, and cannot deadlock, but while it waits for one key it holds those before it.
//
// Not here: AcquireShared and Reserve, because an engine has no shared locks, and an order among processes cannot be
// fixed by one of them; Session, because a cycle
// among processes cannot be seen by one of them, so that a wait should have a deadline; Handoff and Value,
// because the claim travels there.
package cohort
