package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/examples/internal/report"
)

// coldPause is how long a cold row is left alone between two transactions.
const coldPause = 100 * time.Millisecond

// result is what was measured in all runs without the lock, or with it.
type result struct {
	locked    bool
	wall      time.Duration
	hot, cold []sample
}

// sample is one transaction.
type sample struct {
	latency time.Duration // from wanting to add until it is committed
	waited  time.Duration // for a connection
}

// measure runs the goroutines of both kinds for the time that opts gives, over a new table, checks
// that all their additions are there, and adds what it measured to r.
func measure(ctx context.Context, url string, r *result, opts options, stderr io.Writer) (err error) {
	lasting := context.WithoutCancel(ctx) // what must be done although ctx has ended
	table, err := openRows(lasting, url, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, table.close()) }()
	if r.locked {
		table.locks = keylock.Start[int](lasting)
		defer table.locks.Close()
	}

	running, cancel := context.WithTimeout(ctx, opts.time)
	defer cancel()
	group, running := errgroup.WithContext(running)
	group.Go(func() error {
		showProgress(running, stderr, name(r.locked), opts.time)
		return nil
	})

	var (
		mu        sync.Mutex // guards both:
		hot, cold []sample
	)
	add := func(row int, pause time.Duration, samples *[]sample) {
		group.Go(func() error {
			own, err := addUntilDone(running, table, row, pause)
			mu.Lock()
			defer mu.Unlock()
			*samples = append(*samples, own...)
			return err
		})
	}
	begun := time.Now()
	for range opts.hot {
		add(hotRow, 0, &hot)
	}
	for i := range opts.cold {
		add(hotRow+1+i, coldPause, &cold)
	}
	err = group.Wait()
	r.wall += time.Since(begun)
	r.hot = append(r.hot, hot...)
	r.cold = append(r.cold, cold...)
	return errors.Join(err, table.verify(lasting, len(hot), len(cold)))
}

// addUntilDone adds to the row, with pauses, until ctx ends, and returns a sample of each addition.
func addUntilDone(ctx context.Context, table *rows, row int, pause time.Duration) (samples []sample, err error) {
	for {
		begun := time.Now()
		waited, err := table.add(ctx, row)
		if err != nil && errors.Is(err, ctx.Err()) {
			return samples, nil // while it waited
		}
		if err != nil {
			return samples, err
		}
		samples = append(samples, sample{latency: time.Since(begun), waited: waited})
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return samples, nil
		}
	}
}

// showProgress moves a bar on every tenth of a second until ctx ends.
func showProgress(ctx context.Context, w io.Writer, description string, total time.Duration) {
	const step = time.Second / 10
	bar := report.NewProgress(w, description, int(total/step))
	defer bar.Finish()
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			bar.Step()
		case <-ctx.Done():
			return
		}
	}
}

// throughput returns how many transactions the hot row got through in a second.
func (r result) throughput() float64 { return float64(len(r.hot)) / r.wall.Seconds() }

// latencies and waits return what the samples say of either.
func latencies(samples []sample) (all []time.Duration) {
	for _, s := range samples {
		all = append(all, s.latency)
	}
	return all
}

func waits(samples []sample) (all []time.Duration) {
	for _, s := range samples {
		all = append(all, s.waited)
	}
	return all
}
