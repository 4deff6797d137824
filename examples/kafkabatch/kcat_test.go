package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/internal/locktest"
)

// kcat runs the client of that name, which shares no code with this program: it is librdkafka. It
// returns the lines that kcat prints.
func kcat(t *testing.T, stdin string, args ...string) []string {
	t.Helper()
	path := locktest.Tool(t, "kcat", "kcat")
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	var stdout, stderr bytes.Buffer
	client := exec.CommandContext(ctx, path, args...)
	client.Stdin, client.Stdout, client.Stderr = strings.NewReader(stdin), &stdout, &stderr
	require.NoError(t, client.Run(), "%s", &stderr)
	return strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
}

func TestIndependentClient(t *testing.T) {
	const records, keys = 2000, 50
	cluster := startCluster(t)
	brokers := cluster.ListenAddrs()[0]
	_, err := command(t, t.Output(), "-brokers", brokers, "-topic", testTopic, "-group", testGroup,
		"-records", fmt.Sprint(records), "-keys", fmt.Sprint(keys), "-work", "0s")
	require.NoError(t, err)

	// It reads what the command wrote: every key's values in the order in which they were produced.
	next := make(map[string]int)
	lines := kcat(t, "", "-b", brokers, "-C", "-t", testTopic, "-o", "beginning", "-e", "-q", "-f", "%k %s\n")
	for _, line := range lines {
		var key, value int
		_, err := fmt.Sscanf(line, "key-%d %d", &key, &value)
		require.NoError(t, err, line)
		name := fmt.Sprint(key)
		require.Equal(t, key+next[name]*keys, value)
		next[name]++
	}
	assert.Len(t, lines, records)
	assert.Len(t, next, keys)

	// It understands the commits: as a member of the group it finds nothing left, then what is new.
	group := modes[len(modes)-1].group(testGroup)
	const unseen = 100
	var fresh strings.Builder
	for i := range unseen {
		fmt.Fprintf(&fresh, "key-%d:fresh-%d\n", i%keys, i)
	}
	kcat(t, fresh.String(), "-b", brokers, "-P", "-t", testTopic, "-K", ":")
	lines = kcat(t, "", "-b", brokers, "-C", "-G", group, "-e", "-q", "-f", "%s\n", testTopic)
	assert.Len(t, lines, unseen)
	for _, line := range lines {
		assert.Contains(t, line, "fresh-")
	}

	// And the command reads what it wrote.
	stdout, err := command(t, t.Output(), "-brokers", brokers, "-topic", testTopic, "-group", testGroup, "-work", "0s")
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprint(unseen), cell(t, stdout, modes[0], handledColumn))
}
