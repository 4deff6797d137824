package prom

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-46f81e6d/keylock/cohort"
)

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
