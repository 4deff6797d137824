package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
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

// name names a run for people.
func name(locked bool) string {
	if locked {
		return "with the lock"
	}
	return "without the lock"
}

// show prints what the runs did, and plots it if there is a file for that.
func show(w io.Writer, results []result, svg string) error {
	results = slices.DeleteFunc(results, func(r result) bool { return len(r.hot) == 0 }) // not come to
	if len(results) == 0 {
		_, err := fmt.Fprintln(w, "Interrupted before the first run had ended, so there is nothing to show.")
		return err
	}
	var table [][]string
	for _, r := range results {
		cold, wait := report.Summarize(latencies(r.cold)), report.Summarize(waits(r.cold))
		table = append(table, []string{
			name(r.locked),
			report.Short(cold.P50).String(),
			report.Short(cold.P99).String(),
			report.Short(wait.P50).String(),
			report.Short(wait.P99).String(),
			fmt.Sprintf("%.0f/s", r.throughput()),
		})
	}
	header := []string{"run", "cold p50", "cold p99", "wait p50", "wait p99", "hot done"}
	if err := report.Table(w, header, table); err != nil {
		return err
	}
	fmt.Fprintln(w, "Wait is what of the cold rows' time was waiting for a connection.")
	if len(results) == 2 {
		without, with := results[0], results[1]
		fmt.Fprintf(w, "With the lock the median of the cold rows is %.0f times lower, at %.2f times the hot row's throughput.\n",
			coldGain(without, with), with.throughput()/without.throughput())
	}
	fmt.Fprintln(w, "Every addition is in the database.")
	if svg == "" {
		return nil
	}
	return plot(svg, results)
}

// coldGain returns how many times lower the median latency of the cold rows is with the lock.
func coldGain(without, with result) float64 {
	return report.Summarize(latencies(without.cold)).P50.Seconds() / report.Summarize(latencies(with.cold)).P50.Seconds()
}

// plot writes an SVG picture of the cold rows' latencies and the hot row's throughput to a file.
func plot(file string, results []result) error {
	var (
		curves     []report.Latencies
		names      []string
		throughput report.Bars
	)
	for _, r := range results {
		curves = append(curves, report.Latencies{Name: name(r.locked), Values: latencies(r.cold)})
		names = append(names, name(r.locked))
		throughput.Values = append(throughput.Values, math.Round(r.throughput()))
	}
	left, err := report.LatencyPlot("latency on the cold rows", curves...)
	if err != nil {
		return err
	}
	left.Y.Label.Text = "% of updates done"
	left.Legend.Left, left.Legend.Top = true, true // the slow curve begins at the bottom right
	left.Legend.XOffs = -left.Legend.XOffs
	right, err := report.BarPlot("throughput of the hot row", "transactions per second", names, throughput)
	if err != nil {
		return err
	}

	return report.SaveSVG(file, left, right)
}
