package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// command runs the command in this process and returns what it writes to its standard output.
func command(t *testing.T, stderr io.Writer, args ...string) (stdout string, err error) {
	t.Helper()
	s, err := parse(args, stderr)
	require.NoError(t, err)
	var out strings.Builder
	err = run(t.Context(), s, &out, stderr)
	return out.String(), err
}

// The promise of the program: order and exclusion within a key like one by one, and many times
// faster: twenty to forty times in the runs of docs/USE_CASES.md, four at least on a very busy machine.
func TestInOrderAndManyTimesFaster(t *testing.T) {
	cluster := startCluster(t)
	s, err := parse([]string{"-work=2ms", "-partitions=1"}, t.Output())
	require.NoError(t, err)
	s.brokers, s.topic = cluster.ListenAddrs(), testTopic
	readings := fillTopic(t, cluster, s.partitions, 2000, s.keys)

	results := make(map[string]result)
	for _, m := range modes {
		r, err := consume(t.Context(), s, readings, m, t.Output())
		require.NoError(t, err)
		t.Logf("%-55s %8v %+v lag %d", m.name, r.wall, r.findings, r.lag)
		assert.Equal(t, 2000, r.handled, m.name)
		assert.Zero(t, r.lag, m.name)
		results[m.suffix] = r
	}

	assert.Equal(t, findings{handled: 2000}, results["one-by-one"].findings)
	assert.Positive(t, results["no-lock"].overlaps)
	assert.Zero(t, results["acquire"].overlaps)
	assert.Positive(t, results["acquire"].violations, "exclusion is not order")
	assert.Equal(t, findings{handled: 2000}, results["batch"].findings)
	assert.GreaterOrEqual(t, results["one-by-one"].wall, 4*results["batch"].wall)
	assert.Equal(t, findings{handled: 2000}, results["streaming"].findings)
	assert.GreaterOrEqual(t, results["one-by-one"].wall, 4*results["streaming"].wall)
}

func TestCommandNeedsNothingBesideIt(t *testing.T) {
	svg := filepath.Join(t.TempDir(), "plot.svg")
	var stderr strings.Builder

	stdout, err := command(t, &stderr, "-records=1200", "-fail-every=1000", "-svg", svg)

	require.NoError(t, err)
	for _, m := range modes {
		assert.Equal(t, "1200", cell(t, stdout, m, handledColumn), m.name)
		assert.Equal(t, "0", lag(stdout, m), m.name)
	}
	assert.Contains(t, stdout, policy)
	assert.Contains(t, stdout, streamPolicy)
	assert.Contains(t, stderr.String(), "records come again")
	picture, err := os.ReadFile(svg)
	require.NoError(t, err)
	require.NoError(t, xml.Unmarshal(picture, new(struct{})))
}

const handledColumn = 3

// lag is how many records the output says that the mode has not committed.
func lag(output string, m mode) string {
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(m.name) + `: (\d+) records are not committed\.$`).FindStringSubmatch(output)
	if line == nil {
		return "0"
	}
	return line[1]
}

// cell returns a column's text, counted from 0, in the line that a table has for the mode.
func cell(t *testing.T, table string, m mode, column int) string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^│ ` + regexp.QuoteMeta(m.name) + ` .*$`).FindString(table)
	cells := strings.Split(strings.Trim(line, "│"), "│")
	require.Greater(t, len(cells), column, table)
	return strings.TrimSpace(cells[column])
}

func TestResultIsVerified(t *testing.T) {
	oneByOne, unlocked := modes[0], modes[1]
	assert.NoError(t, result{mode: oneByOne}.verify())
	assert.NoError(t, result{mode: unlocked, findings: findings{overlaps: 1, violations: 1}}.verify(), "it promises nothing")
	assert.ErrorContains(t, result{mode: oneByOne, findings: findings{overlaps: 1}}.verify(), "1 overlaps")
	assert.ErrorContains(t, result{mode: oneByOne, findings: findings{violations: 1}}.verify(), "1 order violations")
	assert.ErrorContains(t, result{mode: unlocked, lag: 3}.verify(), "3 records")
}

func TestCommandWithNothingToDo(t *testing.T) {
	cluster := startCluster(t)
	fillTopic(t, cluster, 2, 0, 1)

	stdout, err := command(t, t.Output(), "-brokers", cluster.ListenAddrs()[0], "-topic", testTopic)

	require.NoError(t, err)
	assert.Equal(t, "0", cell(t, stdout, modes[0], handledColumn))
}

func TestCommandTellsThatThereIsNoTopic(t *testing.T) {
	cluster := startCluster(t)

	stdout, err := command(t, t.Output(), "-brokers", cluster.ListenAddrs()[0], "-topic", testTopic)

	require.ErrorContains(t, err, testTopic)
	assert.NotContains(t, stdout, modes[0].name)
}

func TestInterruptedCommandCommitsWhatItHandled(t *testing.T) {
	output, committed := interrupt(t, modes[0], "-work=1ms", "-batch=100")
	assert.Equal(t, fmt.Sprint(committed), cell(t, output, modes[0], handledColumn), "handled is committed")
	assert.Equal(t, fmt.Sprint(5000-committed), lag(output, modes[0]))
	assert.NotContains(t, output, modes[1].name)
}

// interrupt runs the command on 5,000 records, interrupts it after its first commit in this mode, and
// returns what it has printed and committed.
func interrupt(t *testing.T, m mode, args ...string) (output string, n int64) {
	t.Helper()
	cluster := startCluster(t)
	args = append([]string{"-brokers", cluster.ListenAddrs()[0], "-records=5000"}, args...)
	child, stdout := startChild(t, commandRole, args...)
	group := m.group("kafkabatch")
	_, err := cluster.WaitGroupInfo(t.Context(), group, func(g *kfake.GroupInfo) bool { return committed(g) > 0 })
	require.NoError(t, err)

	require.NoError(t, child.Process.Signal(os.Interrupt))

	var exit *exec.ExitError
	require.ErrorAs(t, child.Wait(), &exit)
	assert.Equal(t, 130, exit.ExitCode())
	info := cluster.GroupInfo(group)
	assert.Empty(t, info.Members, "it has left the group")
	n = committed(info)
	assert.Less(t, n, int64(5000))
	return stdout.String(), n
}

// committed returns how many records a group has committed, of a topic that begins at offset 0.
func committed(g *kfake.GroupInfo) (n int64) {
	if g == nil {
		return 0
	}
	for _, partitions := range g.Commits {
		for _, commit := range partitions {
			n += commit.Offset
		}
	}
	return n
}

func TestSettings(t *testing.T) {
	for _, test := range []struct {
		args    string
		brokers []string
		records int
	}{
		{"", nil, 6000},
		{"-records 10", nil, 10},
		{"-brokers a:1,b:2", []string{"a:1", "b:2"}, 0},
		{"-brokers a:1 -records 10", []string{"a:1"}, 10},
	} {
		s, err := parse(strings.Fields(test.args), t.Output())
		require.NoError(t, err, test.args)
		assert.Equal(t, test.brokers, s.brokers, test.args)
		assert.Equal(t, test.records, s.records, test.args)
	}
	for _, bad := range []string{"-keys 0", "-partitions 0", "-batch 0", "-records -2", "-work -1s", "-fail-every -1", "-mode x", "-limit 0", "-window 0", "-what", "extra"} {
		_, err := parse(strings.Fields(bad), t.Output())
		assert.Error(t, err, bad)
	}
}
