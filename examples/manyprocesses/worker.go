package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-46f81e6d/keylock/cohort"
)

const leaseTTL = 2 * time.Second

// work is the program of a worker: four goroutines increment the counter until ctx ends. It
// reports every increment on out. A line on in makes it pause, as if the machine had
// forgotten it, in the middle of the next one; the end of in ends the process.
func work(ctx context.Context, engineName, endpoint string, in io.Reader, out io.Writer) error {
	s, err := services[engineName].connect(endpoint)
	if err != nil {
		return err
	}
	defer s.close()
	engine, err := s.engine()
	if err != nil {
		return err
	}
	locks := cohort.Start(context.WithoutCancel(ctx), engine, cohort.WithMaxHandoffs(20))

	var pause atomic.Bool
	go func() {
		for lines := bufio.NewScanner(in); lines.Scan(); {
			pause.Store(true)
		}
		if ctx.Err() == nil { // the one that started this process is gone
			os.Exit(1)
		}
	}()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				lock, err := locks.Acquire(ctx, "counter")
				if err != nil {
					continue
				}
				count, err := increment(s, lock, func() {
					time.Sleep(2 * time.Millisecond) // the work
					if pause.CompareAndSwap(true, false) {
						fmt.Fprintln(out, "pausing", lock.Token())
						_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
						time.Sleep(100 * time.Millisecond) // it may take a moment to stop all threads
					}
				})
				if errors.Is(err, cohort.ErrLost) {
					fmt.Fprintln(out, "refused", lock.Token())
				} else if err == nil {
					fmt.Fprintln(out, "wrote", lock.Token(), count)
				}
				_ = lock.Release()
			}
		})
	}
	all.Wait()
	stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return locks.Shutdown(stop)
}

// increment reads the counter, works, and writes it, on the condition that the lock is still held.
func increment(s site, lock cohort.Lock, work func()) (int, error) {
	ctx := context.Background() // and not lock.Context(), to show that the condition is enough
	counter, _, err := s.read(ctx)
	if err != nil {
		return 0, err
	}
	work()
	return counter + 1, s.write(ctx, lock, counter+1)
}
