package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
	"github.com/seed-46f81e6d/keylock/etcdlock"
)

// The worker is a process that increments a counter under a lock. It gets its endpoints in an
// environment variable and reports on its standard output.
const (
	workerTTL = 2 * time.Second
	workerKey = "counter"
)

func startWorker(t testing.TB, role string, keeps bool, endpoints ...string) *process {
	return startProcess(t, role, "KEYLOCK_E2E_ENDPOINTS="+strings.Join(endpoints, ","), "KEYLOCK_E2E_KEEPS="+strconv.FormatBool(keeps))
}

// keeps reports whether this worker keeps claims.
func keeps() bool { return os.Getenv("KEYLOCK_E2E_KEEPS") == "true" }

// workerLocks returns what a worker needs; closing ends the manager and the client.
func workerLocks() (locks *cohort.Manager, c counter, closing func() error, err error) {
	client, err := newClient(strings.Split(os.Getenv("KEYLOCK_E2E_ENDPOINTS"), ",")...)
	if err != nil {
		return nil, counter{}, nil, err
	}
	engine, err := etcdlock.New(client, etcdlock.WithTTL(workerTTL))
	if err != nil {
		return nil, counter{}, nil, err
	}
	opts := []cohort.Option{cohort.WithMaxHandoffs(16), cohort.WithMaxHold(100 * time.Millisecond)}
	if keeps() {
		opts = append(opts, cohort.WithKeep(time.Second, 8))
	}
	locks = cohort.Start(context.Background(), engine, opts...)
	closing = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience/2)
		defer cancel()
		return errors.Join(locks.Shutdown(ctx), client.Close())
	}
	return locks, counter{client, "/counter", 20 * time.Millisecond}, closing, nil
}

// workerMain increments the counter with four goroutines until SIGTERM. It prints a line
// for every increment: done, the count and the token.
func workerMain() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	locks, counter, closing, err := workerLocks()
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				if keeps() { // so that the key is unused now and then
					time.Sleep(rand.N(200 * time.Millisecond))
				}
				lock, err := locks.Acquire(ctx, workerKey)
				if err != nil {
					fmt.Println("failed", err)
					time.Sleep(50 * time.Millisecond)
					continue
				}
				// It does not heed lock.Context(), so that only the token keeps out what is late.
				patient, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				count, err := counter.increment(patient, lock.Token())
				cancel()
				if err == nil {
					fmt.Println("done", count, lock.Token())
				} else {
					fmt.Println("failed", err)
				}
				_ = lock.Release()
			}
		})
	}
	all.Wait()
	return closing()
}

// holderMain acquires the lock and reads the counter. At a line on its standard input it
// writes, whatever it believes of the lock by then.
func holderMain() error {
	locks, counter, closing, err := workerLocks()
	if err != nil {
		return err
	}
	lock, err := locks.Acquire(context.Background(), workerKey)
	if err != nil {
		return err
	}
	count, err := counter.read(context.Background(), lock.Token())
	if err != nil {
		return err
	}
	fmt.Println("holding", lock.Token())
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	fmt.Println("wrote", counter.write(context.Background(), lock.Token(), count+1))
	<-lock.Context().Done()
	fmt.Println("told", context.Cause(lock.Context()))
	fmt.Println("released", lock.Release())
	return closing()
}
