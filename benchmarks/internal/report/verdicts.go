package report

import (
	"fmt"
	"io"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/points"
	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// Verdicts writes what the results say about each point that they say anything about.
func Verdicts(w io.Writer, r *results.Results) error {
	for _, point := range points.All() {
		verdicts := point.Judge(r)
		if len(verdicts) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "\npoint %d: %s\n", point.Number, point.About); err != nil {
			return err
		}
		for _, v := range verdicts {
			if _, err := fmt.Fprintf(w, "  %s\n", sentence(v)); err != nil {
				return err
			}
		}
	}
	return nil
}

func sentence(v points.Verdict) string {
	s := v.What + ": " + v.Figure
	switch {
	case v.Goal == "":
		return s
	case v.Missed:
		return s + "; the goal is missed: " + v.Goal
	default:
		return s + "; the goal is reached: " + v.Goal
	}
}
