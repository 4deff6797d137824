package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/seed-46f81e6d/keylock/benchmarks/internal/results"
)

// places are what a page may ask for: what is written stands between the lines
// <!-- NAME --> and <!-- /NAME -->.
var places = []struct {
	name   string
	render func(io.Writer, *results.Results) error
}{
	{"benchmarks", Markdown},
	{"benchmarks summary", Summary},
}

// Insert returns page with what it marks a place for; an error when it marks none.
func Insert(page []byte, r *results.Results) ([]byte, error) {
	var found bool
	for _, place := range places {
		begins, ends := []byte("<!-- "+place.name+" -->\n"), []byte("<!-- /"+place.name+" -->\n")
		before, rest, ok := bytes.Cut(page, begins)
		if !ok {
			continue
		}
		_, after, ok := bytes.Cut(rest, ends)
		if !ok {
			return nil, fmt.Errorf("the page has no line %s", bytes.TrimSpace(ends))
		}
		var content bytes.Buffer
		if err := place.render(&content, r); err != nil {
			return nil, err
		}
		page, found = slices.Concat(before, begins, content.Bytes(), ends, after), true
	}
	if !found {
		return nil, errors.New("the page has neither a line <!-- benchmarks --> nor <!-- benchmarks summary -->")
	}
	return page, nil
}
