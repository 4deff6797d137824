// Package prom exports the totals of a keylock manager to Prometheus.
//
//	registry.MustRegister(prom.NewCollector("orders", orders))
//
// A scrape asks the manager once for its Stats, which costs the same however many keys it
// has. No key is ever a label: the cardinality does not depend on what is locked. The
// label manager carries the name.
//
//	keylock_up                        1; 0, and nothing else, when the manager has ended
//	keylock_keys                      keys that are held or waited for
//	keylock_holders{mode}             live grants, exclusive and shared
//	keylock_waiters                   requests that wait
//	keylock_longest_queue_waiters      the most waiters of any key
//	keylock_requests_total{outcome}   requests: immediate, waited, cancelled, rejected
//	keylock_releases_total            grants that have ended
//	keylock_wait_seconds              histogram of the waits of those who had to queue
//	keylock_owner_requests_total      requests of any kind that the owner received
//	keylock_owner_busy_seconds_total  time that they took it; its rate is how busy it is
//	keylock_slow_log_lost_records_total records that keylock.WithSlowLog did not log
//
// and, with keylock.WithHoldTimes:
//
//	keylock_hold_seconds              histogram of how long ended grants were held
//	keylock_oldest_hold_seconds       age of the oldest live grant; 0 when there is none
//	keylock_oldest_wait_seconds       age of the oldest wait; 0 when nobody waits
package prom

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-46f81e6d/keylock"
)

// A Source is a [keylock.Manager], of keys of any type.
type Source interface {
	Stats(ctx context.Context) (keylock.Stats, error)
}

// NewCollector returns a collector of a manager's totals, under a name that no other
// manager has in the same registry.
func NewCollector(name string, manager Source) prometheus.Collector {
	desc := func(metric, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("keylock_"+metric, help, labels, prometheus.Labels{"manager": name})
	}
	return &collector{
		manager: manager,
		up:      desc("up", "Whether the manager runs."),

		keys:    desc("keys", "Keys that are held or waited for."),
		holders: desc("holders", "Live grants.", "mode"),
		waiters: desc("waiters", "Requests that wait."),
		longest: desc("longest_queue_waiters", "The most waiters that any key has."),

		requests: desc("requests_total", "Requests for locks.", "outcome"),
		releases: desc("releases_total", "Grants that have ended."),
		waits:    desc("wait_seconds", "How long those waited who had to queue."),

		ownerRequests: desc("owner_requests_total", "Requests of any kind that the owner received."),
		ownerBusy:     desc("owner_busy_seconds_total", "Time that the owner was busy, estimated."),
		lostRecords:   desc("slow_log_lost_records_total", "Records that the slow log did not log."),

		holds:      desc("hold_seconds", "How long grants were held that have ended."),
		oldestHold: desc("oldest_hold_seconds", "How long the oldest live grant has been held."),
		oldestWait: desc("oldest_wait_seconds", "How long the request that has waited for longest has."),
	}
}

type collector struct {
	manager Source

	up                                    *prometheus.Desc
	keys, holders, waiters, longest       *prometheus.Desc
	requests, releases, waits             *prometheus.Desc
	ownerRequests, ownerBusy, lostRecords *prometheus.Desc
	holds, oldestHold, oldestWait         *prometheus.Desc
}

// patience is how long a scrape waits for the owner, who answers in microseconds unless
// the whole process is in trouble.
const patience = 5 * time.Second

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.up, c.keys, c.holders, c.waiters, c.longest, c.requests, c.releases, c.waits,
		c.ownerRequests, c.ownerBusy, c.lostRecords, c.holds, c.oldestHold, c.oldestWait,
	} {
		descs <- d
	}
}

func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) { count(d, float64(v), labels...) }

	s, err := c.manager.Stats(ctx)
	if err != nil {
		gauge(c.up, 0)
		return
	}
	gauge(c.up, 1)
	gauge(c.keys, float64(s.Keys))
	gauge(c.holders, float64(s.Held-s.Shared), "exclusive")
	gauge(c.holders, float64(s.Shared), "shared")
	gauge(c.waiters, float64(s.Waiting))
	gauge(c.longest, float64(s.LongestQueue))
	counter(c.requests, s.Acquired-s.Waited, "immediate")
	counter(c.requests, s.Waited, "waited")
	counter(c.requests, s.Cancelled, "cancelled")
	counter(c.requests, s.Rejected, "rejected")
	counter(c.releases, s.Released)
	metrics <- newHistogram(c.waits, s.Waits)
	counter(c.ownerRequests, s.Requests)
	count(c.ownerBusy, s.Serving.Seconds())
	counter(c.lostRecords, s.SlowLogLost)
	if s.Timed {
		metrics <- newHistogram(c.holds, s.Holds)
		gauge(c.oldestHold, s.OldestHold.Seconds())
		gauge(c.oldestWait, s.OldestWait.Seconds())
	}
}

// newHistogram makes a metric of a histogram. Prometheus wants its buckets cumulated, and
// adds the last one, which has no bound, itself.
func newHistogram(d *prometheus.Desc, h keylock.Histogram) prometheus.Metric {
	buckets, below := make(map[float64]uint64, len(h.Buckets)), uint64(0)
	for i, n := range h.Buckets[:len(h.Buckets)-1] {
		below += n
		buckets[h.Bound(i).Seconds()] = below
	}
	return prometheus.MustNewConstHistogram(d, h.Count, h.Sum.Seconds(), buckets)
}
