package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTableAlignsNumbersRight(t *testing.T) {
	var out strings.Builder
	require.NoError(t, Table(&out, []string{"lock", "retries"}, [][]string{{"off", "10500"}, {"on", "0"}, {"none"}}))
	assert.Equal(t, strings.TrimLeft(`
┌──────┬─────────┐
│ lock │ retries │
├──────┼─────────┤
│ off  │   10500 │
│ on   │       0 │
│ none │         │
└──────┴─────────┘
`, "\n"), out.String())
}

func TestSummarizeTakesNearestRanks(t *testing.T) {
	var hundred []time.Duration
	for i := 100; i >= 1; i-- {
		hundred = append(hundred, time.Duration(i)*time.Millisecond)
	}
	before := slices.Clone(hundred)
	assert.Equal(t, Summary{P50: 50 * time.Millisecond, P99: 99 * time.Millisecond, Max: 100 * time.Millisecond}, Summarize(hundred))
	assert.Equal(t, before, hundred, "the caller's order stays")

	assert.Equal(t, Summary{P50: 7, P99: 7, Max: 7}, Summarize([]time.Duration{7}))
	assert.Zero(t, Summarize(nil))
}

func TestShortKeepsThreeDigits(t *testing.T) {
	for long, short := range map[time.Duration]string{
		1234567 * time.Microsecond: "1.23s",
		999600 * time.Nanosecond:   "1ms",
		45678 * time.Microsecond:   "45.7ms",
		-45678 * time.Microsecond:  "-45.7ms",
		512:                        "512ns",
		0:                          "0s",
	} {
		assert.Equal(t, short, Short(long).String())
	}
}

func TestSVGShowsBothPanels(t *testing.T) {
	latencies, err := LatencyPlot("latency per event",
		Latencies{"without", []time.Duration{0, time.Millisecond, time.Second}},
		Latencies{"with", []time.Duration{time.Millisecond}},
		Latencies{"never ran", nil})
	require.NoError(t, err)
	retries, err := BarPlot("retries & <marks>", "count", []string{"hot", "cold"},
		Bars{"without", []float64{10500, 3}}, Bars{"with", []float64{0, 0}})
	require.NoError(t, err)

	var out bytes.Buffer
	require.NoError(t, WriteSVG(&out, latencies, retries))
	for _, text := range []string{"latency per event", "retries &amp; &lt;marks&gt;", "without", "hot", "cold"} {
		assert.Contains(t, out.String(), text)
	}
	assert.NotContains(t, out.String(), "never ran")
	requireXML(t, out.Bytes())
}

func TestPlotsOfNothingCanBeDrawn(t *testing.T) {
	latencies, err := LatencyPlot("nothing measured")
	require.NoError(t, err)
	single, err := LatencyPlot("one value", Latencies{"one", []time.Duration{time.Millisecond}})
	require.NoError(t, err)
	zero, err := BarPlot("no retries", "count", []string{"off", "on"}, Bars{"retries", []float64{0, 0}})
	require.NoError(t, err)

	var out bytes.Buffer
	require.NoError(t, WriteSVG(&out, latencies, single, zero))
	requireXML(t, out.Bytes())
	assert.NotContains(t, out.String(), "NaN")
}

func requireXML(t *testing.T, picture []byte) {
	t.Helper()
	decoder := xml.NewDecoder(bytes.NewReader(picture))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

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
