package report

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// finish runs a bar of two steps on w to its end, with one step more than promised.
func finish(w io.Writer) {
	p := NewProgress(w, "scoring", 2)
	for range 3 {
		p.Step()
	}
	p.Finish()
}

func TestProgressIsDrawnOnATerminal(t *testing.T) {
	screen, terminal, err := pty.Open()
	require.NoError(t, err)
	defer screen.Close()

	finish(terminal)
	require.NoError(t, terminal.Close())
	drawn, _ := io.ReadAll(screen) // a terminal that has no writer any more ends with an error
	assert.Contains(t, string(drawn), "scoring")
}

func TestProgressIsSilentElsewhere(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "stderr")
	require.NoError(t, err)
	defer file.Close()
	finish(file)
	info, err := file.Stat()
	require.NoError(t, err)
	assert.Zero(t, info.Size())

	var buffer bytes.Buffer
	finish(&buffer)
	assert.Empty(t, buffer.String())
}
