package report

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHelpBeginsWithWhatTheProgramDoes(t *testing.T) {
	var out bytes.Buffer
	flags := flag.NewFlagSet("program", flag.ContinueOnError)
	flags.SetOutput(&out)
	flags.Int("n", 3, "how many")
	Usage(flags, "Program counts.")
	require.ErrorIs(t, flags.Parse([]string{"-h"}), flag.ErrHelp)
	assert.Equal(t, "Program counts.\n\nUsage of program:\n  -n int\n    \thow many (default 3)\n", out.String())
}

func TestFileThatCannotBeWrittenIsNoticedEarly(t *testing.T) {
	dir := t.TempDir()
	assert.NoError(t, Writable(""))
	assert.Error(t, Writable(dir))
	assert.Error(t, Writable(filepath.Join(dir, "missing", "plot.svg")))

	file := filepath.Join(dir, "plot.svg")
	require.NoError(t, Writable(file))
	assert.NoFileExists(t, file)
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o644))
	require.NoError(t, Writable(file))
	kept, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "old", string(kept), "what is there stays until it is replaced")
}
