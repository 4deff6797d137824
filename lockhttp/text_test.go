package lockhttp

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/seed-46f81e6d/keylock"
)

func TestDurationsAreShownAsPeopleSayThem(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-1: "0", 0: "0", 1: "1 ns", 999: "999 ns", 1000: "1 µs", 8_192: "8.19 µs", 999_400: "999 µs", 999_600: "1 ms",
		8_388_608: "8.39 ms", 999_499_999: "999 ms", 999_500_000: "1 s", time.Second: "1 s", 1500 * time.Millisecond: "1.5 s",
		59_949 * time.Millisecond: "59.9 s", 59_950 * time.Millisecond: "1m 00s", time.Minute: "1m 00s", 61 * time.Second: "1m 01s",
		time.Hour - time.Millisecond: "1h 00m", time.Hour: "1h 00m", 47*time.Hour + 59*time.Minute: "47h 59m",
		2*day - time.Second: "2d 00h", 2 * day: "2d 00h", 100*day + 5*time.Hour: "100d 05h", 1<<63 - 1: "106751d 23h",
	} {
		assert.Equal(t, want, age(d), d.String())
	}
	for d := time.Duration(1); d > 0; d += d/7 + 1 {
		assert.NotContains(t, age(d), "e+", d.String())
	}
}

func TestBoundsRatesAndSharesAreShownAsPeopleSayThem(t *testing.T) {
	var h keylock.Histogram
	var bounds []string
	for i := range h.Buckets[1:] {
		bounds = append(bounds, short(h.Bound(i)))
	}
	assert.Equal(t, "1 µs, 2 µs, 4.1 µs, 8.2 µs, 16 µs, 33 µs, 66 µs, 131 µs, 262 µs, 524 µs, 1 ms, 2.1 ms, 4.2 ms, 8.4 ms, 17 ms, 34 ms, "+
		"67 ms, 134 ms, 268 ms, 537 ms, 1.1 s, 2.1 s, 4.3 s, 8.6 s, 17 s, 34 s, 1.1 min, 2.3 min, 4.6 min, 9.2 min, 18 min", strings.Join(bounds, ", "))
	for share, want := range map[float64]string{
		0: "0%", 0.000035: "<0.1%", 0.001: "0.1%", 0.0123: "1.2%", 0.0994: "9.9%", 0.0996: "10%", 0.5: "50%", 1: "100%",
	} {
		assert.Equal(t, want, percent(share))
	}
	for v, want := range map[float64]string{0: "0/s", 0.01: "<0.1/s", 0.14: "0.1/s", 9.94: "9.9/s", 9.96: "10/s", 1234.4: "1\u202f234/s", 1e7: "10\u202f000\u202f000/s"} {
		assert.Equal(t, want, rate(v))
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1\u202f000", 1234567: "1\u202f234\u202f567"} {
		assert.Equal(t, want, count(n))
	}
}

func TestEveryDurationStandsAtItsBar(t *testing.T) {
	var h keylock.Histogram
	for i := range h.Buckets {
		assert.Equal(t, i, bucket(h.Bound(i)-1))
	}
	assert.Equal(t, len(h.Buckets)-1, bucket(1<<63-1))
	assert.Zero(t, bucket(0))
}
