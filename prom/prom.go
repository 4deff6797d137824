// Package prom exports the totals of a keylock manager to Prometheus.
//
//	registry.MustRegister(prom.NewCollector("orders", orders))
//
// A scrape asks the manager once for its Stats, which costs the same however many keys it
// has, but for those that keylock.WithKeptGrants keeps. No key is ever a label: the cardinality does not depend on what is locked. The
// label manager carries the name.
//
//	keylock_up                           1; 0, and nothing else, when the manager has ended or does not reply within 5 s
//	keylock_keys                         keys that are held or waited for
//	keylock_holders{mode}                live grants: exclusive, shared
//	keylock_waiters                      requests that wait
//	keylock_longest_queue_waiters        the most waiters of any key
//	keylock_requests_total{outcome}      requests for locks that are decided: immediate (granted at once), waited (granted
//	                                     after a wait), cancelled, rejected; those that still wait are keylock_waiters
//	keylock_releases_total               grants that have ended
//	keylock_wait_seconds                 histogram: how long requests waited that had to, granted or cancelled
//	keylock_owner_requests_total         messages of any kind that the manager's goroutine, its owner, received
//	keylock_owner_busy_seconds_total     time that the owner spent on them, estimated; its rate is how busy it is
//	keylock_slow_log_lost_records_total  records that keylock.WithSlowLog did not log
//
// and, with keylock.WithHoldTimes:
//
//	keylock_hold_seconds                 histogram: how long grants that have ended were held
//	keylock_oldest_hold_seconds          how long the oldest live grant has been held; 0 when there is none
//	keylock_oldest_wait_seconds          how long the oldest wait has lasted; 0 when nothing waits
//
// A cohort has these of its local manager, in which a process that waits at the engine holds
// the key, and
//
//	keylock_cohort_claims{state}                  claims of this process at the engine: waiting, held, kept
//	keylock_cohort_engine_grants_total            locks that the engine granted to this process
//	keylock_cohort_engine_refusals_total          requests that ended at the engine without a grant
//	keylock_cohort_handoffs_total                 times that one was handed off within this process
//	keylock_cohort_losses_total                   locks that were lost before they were released
//	keylock_cohort_kept_hits_total                times that a caller found its key kept, also one that waited for it here
//	keylock_cohort_kept_recalls_total             kept keys that were given back because another process wanted them
//	keylock_cohort_engine_wait_seconds            histogram: how long the engine took to grant
//	keylock_cohort_engine_release_seconds         histogram: how long the engine took to confirm a release
//	keylock_cohort_slow_log_lost_records_total    records that cohort.WithSlowLog did not log
//	keylock_cohort_engine_retries_total           requests to the service that failed and were repeated
//	keylock_cohort_engine_orphans_total           keys left behind by requests that were carried out too late, and removed
//	keylock_cohort_engine_sessions_total          sessions that have begun, such as leases
//	keylock_cohort_engine_sessions_lost_total     those that ended before the engine was closed
//	keylock_cohort_engine_session_age_seconds     how long ago the session began; absent when there is none
package prom

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-46f81e6d/keylock"
	"github.com/seed-46f81e6d/keylock/cohort"
)

// A Source is a [keylock.Manager], of keys of any type.
type Source interface {
	Stats(ctx context.Context) (keylock.Stats, error)
}

// NewCollector returns a collector of a manager's totals, under a name that no other
// manager has in the same registry. A manager that is nil, or was not made by Start, panics.
func NewCollector(name string, manager Source) prometheus.Collector {
	if manager == nil {
		panic("prom: NewCollector with a nil manager")
	}
	mustBeStarted(manager)
	return newCollector(name, func(ctx context.Context) (cohort.Stats, error) {
		local, err := manager.Stats(ctx)
		return cohort.Stats{Local: local}, err
	})
}

// mustBeStarted panics for a nil pointer to a manager, and for one that Start did not make. A scrape would panic
// as well, but on a goroutine of the registry, which ends the process.
func mustBeStarted(manager any) {
	if m, ok := manager.(interface{ Done() <-chan struct{} }); ok {
		m.Done()
	}
}

// describer returns what makes the descriptions of the metrics of one manager.
func describer(name string) func(metric, help string, labels ...string) *prometheus.Desc {
	return func(metric, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("keylock_"+metric, help, labels, prometheus.Labels{"manager": name})
	}
}

func newCollector(name string, stats func(context.Context) (cohort.Stats, error)) *collector {
	desc := describer(name)
	return &collector{
		stats: stats,
		up:    desc("up", "Whether the manager runs: 0 when it has ended, or did not reply in time."),

		keys:    desc("keys", "Keys that are held or waited for."),
		holders: desc("holders", "Live grants.", "mode"),
		waiters: desc("waiters", "Requests that wait."),
		longest: desc("longest_queue_waiters", "The most waiters that any key has."),

		requests: desc("requests_total", "Requests for locks that are decided.", "outcome"),
		releases: desc("releases_total", "Grants that have ended."),
		waits:    desc("wait_seconds", "How long requests waited that had to."),

		ownerRequests: desc("owner_requests_total", "Messages of any kind that the owner received."),
		ownerBusy:     desc("owner_busy_seconds_total", "Time that the owner spent on them, estimated."),
		lostRecords:   desc("slow_log_lost_records_total", "Records that the slow log did not log."),

		holds:      desc("hold_seconds", "How long grants that have ended were held."),
		oldestHold: desc("oldest_hold_seconds", "How long the oldest live grant has been held."),
		oldestWait: desc("oldest_wait_seconds", "How long the oldest wait has lasted."),
	}
}

type collector struct {
	stats  func(context.Context) (cohort.Stats, error)
	cohort *cohortMetrics // nil for a manager without an engine

	up                                    *prometheus.Desc
	keys, holders, waiters, longest       *prometheus.Desc
	requests, releases, waits             *prometheus.Desc
	ownerRequests, ownerBusy, lostRecords *prometheus.Desc
	holds, oldestHold, oldestWait         *prometheus.Desc
}

// patience is how long a scrape waits for the owner, which replies in microseconds unless
// the whole process is in trouble.
const patience = 5 * time.Second

func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	all := []*prometheus.Desc{
		c.up, c.keys, c.holders, c.waiters, c.longest, c.requests, c.releases, c.waits,
		c.ownerRequests, c.ownerBusy, c.lostRecords, c.holds, c.oldestHold, c.oldestWait,
	}
	if c.cohort != nil {
		all = append(all, c.cohort.all()...)
	}
	for _, d := range all {
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

	all, err := c.stats(ctx)
	if err != nil {
		gauge(c.up, 0)
		return
	}
	s := all.Local
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
	if c.cohort != nil {
		c.cohort.collect(metrics, all)
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
	return prometheus.MustNewConstHistogram(d, h.Count, h.Sum, buckets)
}

// A CohortSource is a [cohort.Manager].
type CohortSource interface {
	Stats(ctx context.Context) (cohort.Stats, error)
}

// NewCohortCollector is [NewCollector] for a cohort: the metrics of its local manager, and
// those of its engine.
func NewCohortCollector(name string, manager CohortSource) prometheus.Collector {
	if manager == nil {
		panic("prom: NewCohortCollector with a nil manager")
	}
	mustBeStarted(manager)
	c := newCollector(name, manager.Stats)
	desc := describer(name)
	c.cohort = &cohortMetrics{
		claims:       desc("cohort_claims", "Claims of this process at the engine.", "state"),
		grants:       desc("cohort_engine_grants_total", "Locks that the engine granted to this process."),
		refusals:     desc("cohort_engine_refusals_total", "Requests for locks that ended at the engine without a grant."),
		handoffs:     desc("cohort_handoffs_total", "Times that an engine's lock was handed off within this process."),
		losses:       desc("cohort_losses_total", "Engine's locks that were lost before they were released."),
		hits:         desc("cohort_kept_hits_total", "Times that a caller found its key kept in this process."),
		recalls:      desc("cohort_kept_recalls_total", "Kept keys that were given back because another process wanted them."),
		waits:        desc("cohort_engine_wait_seconds", "How long the engine took to grant."),
		releases:     desc("cohort_engine_release_seconds", "How long the engine took to confirm a release, up to the engine timeout."),
		lostRecords:  desc("cohort_slow_log_lost_records_total", "Records that the slow log of the engine's waits did not log."),
		retries:      desc("cohort_engine_retries_total", "Requests to the engine's service that failed and were repeated."),
		orphans:      desc("cohort_engine_orphans_total", "Keys left behind at the service by requests that were carried out too late, and removed."),
		sessions:     desc("cohort_engine_sessions_total", "Sessions that have begun."),
		sessionsLost: desc("cohort_engine_sessions_lost_total", "Sessions that ended before the engine was closed."),
		sessionAge:   desc("cohort_engine_session_age_seconds", "How long ago the session began; absent when there is none."),
	}
	return c
}

type cohortMetrics struct {
	claims                             *prometheus.Desc
	grants, refusals, handoffs, losses *prometheus.Desc
	hits, recalls                      *prometheus.Desc
	waits, releases                    *prometheus.Desc
	lostRecords, retries, orphans      *prometheus.Desc
	sessions, sessionsLost, sessionAge *prometheus.Desc
}

func (c *cohortMetrics) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		c.claims, c.grants, c.refusals, c.handoffs, c.losses, c.hits, c.recalls, c.waits, c.releases,
		c.lostRecords, c.retries, c.orphans, c.sessions, c.sessionsLost, c.sessionAge,
	}
}

func (c *cohortMetrics) collect(metrics chan<- prometheus.Metric, s cohort.Stats) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	gauge(c.claims, float64(s.Waiting), cohort.ClaimWaiting.String())
	gauge(c.claims, float64(s.Held-s.Kept), cohort.ClaimHeld.String())
	gauge(c.claims, float64(s.Kept), cohort.ClaimKept.String())
	counter(c.grants, s.Granted)
	counter(c.refusals, s.Refused)
	counter(c.handoffs, s.Handoffs)
	counter(c.losses, s.Lost)
	counter(c.hits, s.Hits)
	counter(c.recalls, s.Recalls)
	metrics <- newHistogram(c.waits, s.Waits)
	metrics <- newHistogram(c.releases, s.Releases)
	counter(c.lostRecords, s.SlowLogLost)
	counter(c.retries, s.Engine.Retries)
	counter(c.orphans, s.Engine.Orphans)
	counter(c.sessions, s.Engine.Sessions)
	counter(c.sessionsLost, s.Engine.Lost)
	if !s.Engine.SessionBegan.IsZero() {
		gauge(c.sessionAge, time.Since(s.Engine.SessionBegan).Seconds())
	}
}
