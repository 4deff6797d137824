package report

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Progress is a progress bar on a terminal, and nothing anywhere else. Its methods may be called
// from any goroutine.
type Progress struct {
	bar *progressbar.ProgressBar
}

// NewProgress returns a bar on w for total steps of what description names. It draws only if w is
// a terminal, at most ten times a second.
func NewProgress(w io.Writer, description string, total int) *Progress {
	return &Progress{bar: progressbar.NewOptions(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetVisibility(isTerminal(w)),
		progressbar.OptionSetDescription(description),
		progressbar.OptionSetWidth(30),
		progressbar.OptionShowCount(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

// Step moves the bar on by one.
func (p *Progress) Step() { _ = p.bar.Add(1) } // a bar that cannot be drawn must not stop the work

// Finish takes the bar off the screen, whether it has reached its total or not.
func (p *Progress) Finish() { _ = p.bar.Finish() }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
