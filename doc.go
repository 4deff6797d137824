// Package keylock grants locks by key inside one process. First come, first served. A
// wait ends with its context. A key takes memory only while it is held or waited for.
//
//	m := keylock.Start[string](ctx)
//	defer m.Close()
//
//	lock, err := m.Acquire(ctx, "order/42")
//	if err != nil {
//		return err
//	}
//	defer lock.Release()
//
// A [Manager] is one goroutine, its owner, that holds all state. Every call is a request
// sent to it over a channel, and the order in which it receives them is the history of
// the manager. Whether a request is granted or cancelled, whether the manager is idle,
// whether it is closed: each is decided in one place, once. The package has no mutex. (With
// [WithKeptGrants] the owner gives grants that callers use again without it, until it calls
// them in.)
//
// # Guarantees
//
// A grant is the right of one request to hold its key, or its keys.
//
//  1. Exclusion. At most one exclusive grant per key is live, and no shared one beside it.
//  2. Order. A key is granted in the order in which requests reached the owner. Calls
//     of one goroutine reach it in program order, so [Manager.Reserve] in a loop fixes
//     the order of work that then runs concurrently. Nothing overtakes: not TryAcquire,
//     not a release followed by an immediate acquisition. One exception harms no request: a
//     shared request passes one that shares the key with it and waits for another key, see
//     [Manager.AcquireSet]. With [WithKeptGrants] a request counts from when the owner has
//     received it: who takes a kept grant may overtake one that is on its way there.
//  3. Independence. A key never waits for the holder of another key, unless requests for many
//     keys connect the two, see [Manager.AcquireAll].
//  4. Cancellation. When its context ends, a wait returns an error that wraps ctx.Err(),
//     leaves the queue at a cost that does not depend on its length, and does not change
//     the order of other requests. A context that is done never acquires, even when the
//     key is free, but for a lock that is handed off with a value, see [Lock.Handoff].
//  5. Grant or cancel, never both, never neither. A grant that races with a
//     cancellation is given back and goes to the next waiter; no grant is lost. What
//     [Lock.Handoff] passes on goes to the next waiter in one transition.
//  6. Release is exact. It ends the one grant that it came from. Again, late, from
//     another goroutine, from a copy or after Close it does nothing, and it can never
//     free the lock of another holder. It never waits for a critical section.
//  7. Eviction is immediate. A key that is neither held nor waited for occupies
//     nothing, and the memory of a burst goes back. [WithKeptGrants] keeps up to n free keys
//     in memory, until the owner calls them in.
//  8. Idle. [Manager.WaitIdle] returns nil at the first moment after the call when no
//     key is active, at once if none is. Any number of callers may wait; keys that are
//     acquired before that moment also count.
//  9. Shutdown. After [Manager.Close], or when Start's context ends, nothing is granted
//     any more: queued waiters and later calls get [ErrClosed]. [Manager.Shutdown]
//     refuses new requests, serves everything that is queued, waits for every holder,
//     then stops.
//  10. No leaks. One goroutine per manager. A waiting call starts none. After
//     [Manager.Done] is closed none remains, whatever was held or queued. (For a context
//     of a type that it does not know, package context watches Start's with one more. A
//     call that is abandoned while the mailbox is full may start one for a moment. And
//     [WithSlowLog] has up to four for its logger, which end when the logger returns.)
//  11. One history. [Manager.Stats], [Manager.Inspect], [Manager.Top] and
//     [Manager.Snapshot] each show one point of it, between the call and its return; a
//     goroutine always sees its own earlier calls in them.
//  12. The owner never runs user code and never waits for a caller. A key that cannot be
//     a map key fails in its own call, on the caller's goroutine, and every other caller
//     goes on undisturbed. See "What a call costs others".
//  13. Memory model. A release is synchronized before the return of the next acquisition of
//     that key, as the Go memory model has it.
//  14. Bubbles. A manager started in a testing/synctest bubble is fully visible to it,
//     so users can test their own code in fake time. A bubble is closed to the channels
//     of a manager that was started outside: using one ends the process. Start one in
//     the bubble instead.
//  15. Scope. [Manager.Do] releases when its function returns, panics or calls
//     runtime.Goexit, and returns the function's error as it is.
//
// # Precedence
//
// A context that is done wins over everything: over a free key, over a reservation
// that was granted, over [ErrClosed]. Every call that takes a context keeps to that, but
// for a lock that was handed off with a value, see [Lock.Handoff]. The errors of calls
// whose context has ended name the key, if there is one, and wrap ctx.Err() and its cause:
// compare them with [errors.Is]. A nil context panics in the caller, as in the standard library.
//
// # Shared locks, many keys, sessions
//
// A key has one queue for exclusive and shared requests. Each is granted when it conflicts
// with no holder and with no earlier waiter, so neighbouring shared requests are granted
// together, and writers do not starve ([Manager.AcquireShared], [WithSharedLimit]). A
// request for many keys enters all their queues at one instant and is granted when it is
// first in all of them ([Manager.AcquireAll]), or shares with those before it where it wants
// to share ([Manager.AcquireSet]), perhaps up to a limit of its own ([Want]). A [Session] may
// wait while it holds: the request that would close a cycle of waits fails with a
// [*DeadlockError].
//
// A holder is never made to let go. It hears that another request waits ([Lock.Wanted]), may
// share what it held alone ([Lock.Downgrade]), and may pass a value to the next waiter with the
// lock ([Lock.Handoff]).
//
// Declined are the upgrade of a shared lock in place, because if two holders both try to
// upgrade, each waits for the other forever; re-entrancy; and leases that expire under a
// live holder, because that lets two holders in.
//
// # What a call costs others
//
// All calls are served one after the other, so each waits for the one that is being served.
// Most cost the same whatever the manager holds, about a microsecond. These cost in proportion
// to what they are about; the figures are the least of several on two cores that others used
// too, see benchmarks/RESULTS.md:
//
//   - A request for many keys, its release, and [Session.Close]: to their keys.
//   - A release, a downgrade, and a handoff: to the waiters that it grants, which are many only if
//     they share. It grants at most some 256 in the queue of each key, and in other queues that
//     sets among them open; the others follow in parts, with requests of others in between. Until
//     then they wait: a shared request that comes meanwhile waits behind them, TryAcquire finds that
//     the key has waiters, and a lock cannot be handed off to them. A handoff is also in proportion
//     to the waiters before the next one whose callers have left.
//   - A request that has to wait for holders that have called [Lock.Wanted]: to these, once.
//   - [Manager.Top] and [Manager.Inspect]: to what they show, at most n keys or 1,000 holders
//     and waiters. [Manager.Snapshot] is served in small parts, others in between; while
//     it is, the first change of each key costs as much as to inspect it, at most 0.1 ms.
//   - With [WithKeptGrants], each call that looks at all keys: to the grants that are kept, some at
//     a time, see there.
//   - A request of a session that has to wait: to what waits for the session, directly or not, with all keys of
//     these sessions and its own, or to what the session would wait for, whichever is less. Before a chain of 64,000
//     sessions, each of which holds a key and waits for the next, a session for which 100 wait takes 0.03 ms,
//     one for which 10,000 wait 3 ms, and one for which 64,000 wait 20 ms.
//   - The end of a context with which very many calls wait: each call that it ends is a request
//     of its own, as short as others, but they come all at once, and a request that comes after
//     them is served after them. 100,000 take 0.2 s.
//   - [Manager.Close] and the end of Start's context: to the waiters. A million take 0.3 s.
//
// # When the manager ends
//
// Locks that are held when the manager ends stay with their holders: their keys are
// never granted again, and their release does nothing.
package keylock
