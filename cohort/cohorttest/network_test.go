package cohorttest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-46f81e6d/keylock/cohort/cohorttest"
)

// echo starts a server that answers every line with its name and the line. It tells what it has read.
func echo(t *testing.T, name string) (addr string, read <-chan string) {
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listen.Close() })
	lines := make(chan string, 16)
	go func() {
		for {
			conn, err := listen.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for in := bufio.NewScanner(conn); in.Scan(); {
					lines <- in.Text()
					fmt.Fprintf(conn, "%s %s\n", name, in.Text())
				}
			}()
		}
	}()
	return listen.Addr().String(), lines
}

// client is a connection through a network.
type client struct {
	net.Conn
	*bufio.Reader
}

func connect(t *testing.T, n *cohorttest.Network) client {
	conn, err := net.Dial("tcp", n.Addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return client{conn, bufio.NewReader(conn)}
}

func (c client) say(t *testing.T, line string) {
	_, err := fmt.Fprintln(c.Conn, line)
	require.NoError(t, err)
}

// hears returns the next line, or the error after a while, during which nothing came.
func (c client) hears(within time.Duration) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(within))
	line, err := c.ReadString('\n')
	return strings.TrimSpace(line), err
}

const soon, patience = 50 * time.Millisecond, 30 * time.Second

func TestNetworkCarriesWhatIsSaid(t *testing.T) {
	one, _ := echo(t, "one")
	two, _ := echo(t, "two")
	n := cohorttest.NewNetwork(t, one)
	c := connect(t, n)
	c.say(t, "a")
	line, err := c.hears(patience)
	require.NoError(t, err)
	assert.Equal(t, "one a", line)
	assert.Equal(t, 1, n.Connections())

	n.Target(two)
	c.say(t, "b")
	line, err = c.hears(patience)
	require.NoError(t, err)
	assert.Equal(t, "one b", line, "a connection stays where it is")
	d := connect(t, n)
	d.say(t, "c")
	line, err = d.hears(patience)
	require.NoError(t, err)
	assert.Equal(t, "two c", line)

	n.Set(cohorttest.Weather{Late: soon})
	begun := time.Now()
	d.say(t, "d")
	line, err = d.hears(patience)
	require.NoError(t, err)
	assert.Equal(t, "two d", line)
	assert.GreaterOrEqual(t, time.Since(begun), soon)
}

func TestNetworkWithholdsWhatIsSaid(t *testing.T) {
	for _, w := range []cohorttest.Weather{{Silent: true}, {NoRequests: true}, {NoReplies: true}} {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			addr, read := echo(t, "server")
			n := cohorttest.NewNetwork(t, addr)
			c := connect(t, n)
			n.Set(w)
			c.say(t, "lost")
			require.Eventually(t, func() bool { return n.Withheld() == 1 }, patience, time.Millisecond)
			_, err := c.hears(soon)
			require.ErrorContains(t, err, "timeout")
			if w.NoReplies {
				assert.Equal(t, "lost", <-read)
			}
			assert.Empty(t, read)
			n.Set(cohorttest.Weather{})
			_, err = c.hears(patience)
			require.Error(t, err, "the connection is closed, because the reply is lost")
			require.NotContains(t, err.Error(), "timeout")
			d := connect(t, n)
			d.say(t, "again")
			line, err := d.hears(patience)
			require.NoError(t, err)
			assert.Equal(t, "server again", line)
		})
	}
}

func TestNetworkThatIsDownRefuses(t *testing.T) {
	addr, _ := echo(t, "server")
	n := cohorttest.NewNetwork(t, addr)
	c := connect(t, n)
	c.say(t, "a")
	_, err := c.hears(patience)
	require.NoError(t, err)
	n.Set(cohorttest.Weather{Down: true})
	_, err = c.hears(patience)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "timeout")
	_, err = connect(t, n).hears(patience)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "timeout")
}

func TestNetworkTellsConnectionsApart(t *testing.T) {
	addr, _ := echo(t, "server")
	n := cohorttest.NewNetwork(t, addr)
	n.SetEach(func(said []byte) cohorttest.Weather {
		return cohorttest.Weather{NoReplies: bytes.HasPrefix(said, []byte("one")), Down: bytes.HasPrefix(said, []byte("two"))}
	})
	one, two, three := connect(t, n), connect(t, n), connect(t, n)
	one.say(t, "one")
	two.say(t, "two")
	three.say(t, "three")
	line, err := three.hears(patience)
	require.NoError(t, err)
	assert.Equal(t, "server three", line)
	require.Eventually(t, func() bool { return n.Withheld() == 1 }, patience, time.Millisecond)
	_, err = one.hears(soon)
	require.ErrorContains(t, err, "timeout")
	_, err = two.hears(patience)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "timeout")
}
