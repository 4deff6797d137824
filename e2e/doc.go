// Package e2e tests cohort and etcdlock against real etcd servers, real operating-system
// processes and a network that fails. It is a module of its own, so that importing
// etcdlock does not pull in the server.
//
//	go test -C e2e .                                       # about three minutes
//	go test -C e2e -race -skip Figure .                    # the race detector's, which has other figures
//	go test -C e2e -run Chaos -timeout 30m . -chaos 10m    # all of them side by side, for ten minutes
//	go test -C e2e -run LeaderMoves . -moves 90            # leadership moves as often under load
//	go test -C e2e -run Figure -v .                        # in turns with concurrency.Mutex
//
// The tests whose names begin with TestP1 to TestP12 each provoke one of the ways in which locks
// by lease go wrong.
package e2e
